using System.Text.RegularExpressions;

namespace Unikraft.Platform.Architecture.Tests;

public sealed partial class SourceTests
{
    private const string Kvm = "Unikraft.Platform.Kvm";

    private static readonly string[] PublicTypesOfKvm =
    [
        "Unikraft.Platform.KvmPlatformBuilderExtensions",
        "Unikraft.Platform.Kvm.KvmOptions",
        "Unikraft.Platform.Kvm.KvmProbe",
        "Unikraft.Platform.Kvm.KvmProblem",
        "Unikraft.Platform.Kvm.KvmSupport",
    ];

    [Fact]
    public void Unsafe_code_and_native_calls_stay_in_the_interop_and_memory_folders_of_kvm()
    {
        IEnumerable<string> strays =
            from package in Package.All
            from source in package.Sources()
            where Unsafe().IsMatch(source.Code)
            let isHome = string.Equals(package.Name, Kvm, StringComparison.Ordinal)
                && (source.Path.StartsWith("Interop/", StringComparison.Ordinal) || source.Path.StartsWith("Memory/", StringComparison.Ordinal))
            where !isHome
            select $"{package.Name}/{source.Path}";

        Assert.Empty(strays);
    }

    [Fact]
    public void Only_kvm_may_compile_unsafe_code() =>
        Assert.Equal(
            [Kvm],
            Package.All.Where(package => package.Project.Descendants("AllowUnsafeBlocks").Any()).Select(package => package.Name));

    [Fact]
    public void Kvm_shows_its_entry_points_only() =>
        Assert.Empty(Package.Load(Kvm).Assembly.GetExportedTypes()
            .Select(type => type.FullName!)
            .Except(PublicTypesOfKvm, StringComparer.Ordinal));

    [Fact]
    public void The_platform_and_the_contracts_know_no_kvm()
    {
        IEnumerable<string> strays =
            from package in Package.All
            where !string.Equals(package.Name, Kvm, StringComparison.Ordinal)
            from source in package.Sources()
            // An error text may name the method to call.
            where source.Code.Replace("UseKvm()", "", StringComparison.Ordinal).Contains("kvm", StringComparison.OrdinalIgnoreCase)
            select $"{package.Name}/{source.Path}";

        Assert.Empty(strays);
    }

    [Theory]
    [InlineData("internal unsafe struct Frame", true)]
    [InlineData("    [LibraryImport(\"libc\")]", true)]
    [InlineData("    [DllImport(\"libc\")]", true)]
    [InlineData("Unsafe.SizeOf<int>()", false)]
    public void The_scan_finds_what_it_looks_for(string code, bool isFound) => Assert.Equal(isFound, Unsafe().IsMatch(code));

    [GeneratedRegex(@"\bunsafe\b|\bLibraryImport\b|\bDllImport\b", RegexOptions.None, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Unsafe();
}

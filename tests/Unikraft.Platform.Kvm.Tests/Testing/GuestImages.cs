namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The prebuilt guests, next to the tests.</summary>
internal static class GuestImages
{
    internal static IEnumerable<string> Names =>
        Directory.EnumerateFiles(Folder, "*.elf").Select(path => Path.GetFileNameWithoutExtension(path)).Order(StringComparer.Ordinal);

    private static string Folder => Path.Combine(AppContext.BaseDirectory, "guests");

    internal static GuestImage Get(string name) => GuestImage.FromFile(PathOf(name));

    internal static byte[] Read(string name) => File.ReadAllBytes(PathOf(name));

    /// <summary>A program for Linux as a guest.</summary>
    internal static byte[] ReadLinuxProgram(string name) => File.ReadAllBytes(Path.Combine(Folder, $"linux-{name}"));

    private static string PathOf(string name) => Path.Combine(Folder, name + ".elf");
}

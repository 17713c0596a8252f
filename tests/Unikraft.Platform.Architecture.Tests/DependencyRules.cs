namespace Unikraft.Platform.Architecture.Tests;

/// <summary>Which package may refer to what: Kvm -> Abstractions &lt;- Platform, and nothing else of ours.</summary>
internal static class DependencyRules
{
    private const string Abstractions = "Unikraft.Platform.Abstractions";

    private static readonly Dictionary<string, string[]> Allowed = new(StringComparer.Ordinal)
    {
        [Abstractions] = [],
        ["Unikraft.Platform"] = [Abstractions],
        ["Unikraft.Platform.Kvm"] = [Abstractions],
    };

    private static readonly string[] Contracts =
    [
        "Microsoft.Extensions.DependencyInjection.Abstractions",
        "Microsoft.Extensions.Hosting.Abstractions",
        "Microsoft.Extensions.Logging.Abstractions",
        "Microsoft.Extensions.Options",
    ];

    private static readonly Dictionary<string, string[]> AllowedPackages = new(StringComparer.Ordinal)
    {
        [Abstractions] = Contracts,
        // Of health checks, the builder is not in the package of the abstractions.
        ["Unikraft.Platform"] =
        [
            .. Contracts,
            "CommunityToolkit.HighPerformance",
            "Microsoft.Extensions.Diagnostics.HealthChecks",
            "Microsoft.Extensions.Diagnostics.HealthChecks.Abstractions",
        ],
        ["Unikraft.Platform.Kvm"] = [.. Contracts, "CommunityToolkit.HighPerformance"],
    };

    public static IEnumerable<string> ProjectViolations(Package package)
    {
        if (!Allowed.TryGetValue(package.Name, out string[]? projects))
        {
            return [$"{package.Name} is a new package: say here what it may refer to."];
        }

        return
        [
            .. package.References("ProjectReference").Except(projects, StringComparer.Ordinal)
                .Select(reference => $"{package.Name} must not refer to the project {reference}."),
            .. package.References("PackageReference").Except(AllowedPackages[package.Name], StringComparer.Ordinal)
                .Select(reference => $"{package.Name} must not refer to the package {reference}."),
            .. package.References("InternalsVisibleTo")
                .Where(friend => !friend.EndsWith(".Tests", StringComparison.Ordinal)
                    && !friend.EndsWith(".TestKit", StringComparison.Ordinal)
                    && !friend.EndsWith(".Benchmarks", StringComparison.Ordinal)
                    && !friend.EndsWith(".Latency", StringComparison.Ordinal))
                .Select(friend => $"{package.Name} must not show its internals to {friend}."),
        ];
    }

    public static IEnumerable<string> AssemblyViolations(string package, IEnumerable<string> references) => references
        .Where(reference => !IsRuntime(reference)
            && !Allowed[package].Contains(reference, StringComparer.Ordinal)
            && !AllowedPackages[package].Contains(reference, StringComparer.Ordinal))
        .Select(reference => $"{package} must not refer to the assembly {reference}.");

    private static bool IsRuntime(string reference) =>
        reference.StartsWith("System.", StringComparison.Ordinal) || reference is "netstandard" or "System" or "Microsoft.Win32.Primitives";
}

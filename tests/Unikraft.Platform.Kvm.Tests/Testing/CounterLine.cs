using System.Globalization;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>A line of the counter guest.</summary>
internal sealed record CounterLine(string Nonce, int Tick, string Generation, IReadOnlyList<long> Cpus)
{
    internal static CounterLine Parse(string line)
    {
        Dictionary<string, string> fields = line.Split(' ')
            .Select(field => field.Split('=', 2))
            .ToDictionary(pair => pair[0], pair => pair[1], StringComparer.Ordinal);
        return new CounterLine(
            fields["nonce"],
            int.Parse(fields["tick"], CultureInfo.InvariantCulture),
            fields["gen"],
            fields.TryGetValue("cpus", out string? cpus) && cpus.Length > 0
                ? [.. cpus.Split(',').Select(count => long.Parse(count, CultureInfo.InvariantCulture))]
                : []);
    }
}

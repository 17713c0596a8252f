using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace Unikraft.Platform.Latency;

/// <summary>One row of the results: a measure under one set of parameters, beside its floor where it has one.</summary>
internal sealed record Measurement(
    [property: JsonPropertyName("name")] string Name,
    [property: JsonPropertyName("unit")] string Unit,
    [property: JsonPropertyName("n")] int N,
    [property: JsonPropertyName("p50")] double P50,
    [property: JsonPropertyName("p90")] double P90,
    [property: JsonPropertyName("p99")] double P99,
    [property: JsonPropertyName("max")] double Max,
    [property: JsonPropertyName("floor_p50")] double? FloorP50,
    [property: JsonPropertyName("floor_p99")] double? FloorP99,
    [property: JsonPropertyName("params")] JsonObject Params,
    [property: JsonPropertyName("goals")] IReadOnlyList<Goal> Goals)
{
    internal const string Microseconds = "us";
    internal const string Bytes = "B";
    internal const string Kibibytes = "KiB";
    internal const string Ratio = "ratio";
    internal const string PerSecond = "1/s";

    private const int Decimals = 3;

    /// <summary>The row for a distribution.</summary>
    internal static Measurement Of(
        string name,
        string unit,
        Percentiles subject,
        Percentiles? floor,
        JsonObject parameters,
        params IEnumerable<Target> targets) => new(
        name,
        unit,
        subject.Count,
        Round(subject.P50),
        Round(subject.P90),
        Round(subject.P99),
        Round(subject.Max),
        floor is null ? null : Round(floor.P50),
        floor is null ? null : Round(floor.P99),
        parameters,
        [.. targets.Select(target => target.Evaluate(subject, floor))]);

    private static double Round(double value) => Math.Round(value, Decimals);
}

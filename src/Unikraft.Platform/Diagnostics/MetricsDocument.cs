using System.Globalization;
using System.Text.Json.Serialization;

namespace Unikraft.Platform.Diagnostics;

/// <summary>The metrics of an instance in the form of the public API. The names of its fields are those of the members in snake case.</summary>
internal sealed record MetricsDocument
{
    public required Guid Uuid { get; init; }

    public required string Name { get; init; }

    public required string State { get; init; }

    public required int StartCount { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int RestartCount { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? StartedAt { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? StoppedAt { get; init; }

    public required long UptimeMs { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public long BootTimeUs { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public long NetTimeUs { get; init; }

    public required long RssBytes { get; init; }

    public required long CpuTimeMs { get; init; }

    public required long RxBytes { get; init; }

    public required long RxPackets { get; init; }

    public required long TxBytes { get; init; }

    public required long TxPackets { get; init; }

    [JsonPropertyName("nconns")]
    public required int Connections { get; init; }

    [JsonPropertyName("nreqs")]
    public required int Requests { get; init; }

    [JsonPropertyName("nqueued")]
    public required int Queued { get; init; }

    [JsonPropertyName("ntotal")]
    public required long Total { get; init; }

    public required IReadOnlyList<Bucket> WakeupLatency { get; init; }

    public required ulong WakeupLatencySum { get; init; }

    public static MetricsDocument Of(InstanceMetrics metrics) => new()
    {
        Uuid = metrics.Uuid,
        Name = metrics.Name,
        State = metrics.State.ToText(),
        StartCount = metrics.StartCount,
        RestartCount = metrics.RestartCount,
        StartedAt = Format(metrics.StartedAt),
        StoppedAt = Format(metrics.StoppedAt),
        UptimeMs = (long)metrics.Uptime.TotalMilliseconds,
        BootTimeUs = (long)(metrics.BootTime?.TotalMicroseconds ?? 0),
        NetTimeUs = (long)(metrics.NetTime?.TotalMicroseconds ?? 0),
        RssBytes = metrics.RssBytes,
        CpuTimeMs = (long)metrics.CpuTime.TotalMilliseconds,
        RxBytes = metrics.RxBytes,
        RxPackets = metrics.RxPackets,
        TxBytes = metrics.TxBytes,
        TxPackets = metrics.TxPackets,
        Connections = metrics.Connections,
        Requests = metrics.Requests,
        Queued = metrics.Queued,
        Total = metrics.TotalConnections,
        WakeupLatency = [.. metrics.WakeupLatency.Select(bucket => new Bucket((long?)bucket.UpperBound?.TotalMilliseconds, bucket.Count))],
        WakeupLatencySum = (ulong)metrics.WakeupLatencySum.TotalMilliseconds,
    };

    private static string? Format(DateTimeOffset? moment) =>
        moment?.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);

    /// <summary>A bucket of the histogram.</summary>
    /// <param name="BucketMs">The upper bound in milliseconds; <see langword="null"/> for the last one.</param>
    /// <param name="Count">How many latencies are in it.</param>
    internal sealed record Bucket(long? BucketMs, long Count);
}

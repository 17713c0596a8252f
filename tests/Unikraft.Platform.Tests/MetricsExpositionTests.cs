using System.Text.Json;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed class MetricsExpositionTests
{
    internal static readonly IReadOnlyList<InstanceMetrics> Two =
    [
        new InstanceMetrics
        {
            Uuid = new Guid("0190a6e0-0000-7000-8000-000000000001"),
            Name = "web",
            State = InstanceState.Running,
            StartCount = 3,
            RestartCount = 2,
            StartedAt = new DateTimeOffset(2026, 1, 2, 3, 4, 5, 678, TimeSpan.Zero),
            StoppedAt = new DateTimeOffset(2026, 1, 2, 5, 4, 4, TimeSpan.FromHours(2)),
            Uptime = TimeSpan.FromMilliseconds(90_061_001.9),
            BootTime = TimeSpan.FromMicroseconds(1234),
            NetTime = TimeSpan.FromMicroseconds(56),
            RssBytes = 12_345_678_912,
            CpuTime = TimeSpan.FromMilliseconds(1500.7),
            RxBytes = 1,
            RxPackets = 2,
            TxBytes = 3,
            TxPackets = 4,
            Connections = 5,
            Requests = 6,
            Queued = 7,
            TotalConnections = 8,
            WakeupLatency =
            [
                .. WakeupBucket.UpperBounds.Select((bound, index) => new WakeupBucket(bound, index % 3)),
                new WakeupBucket(UpperBound: null, 9),
            ],
            WakeupLatencySum = TimeSpan.FromMilliseconds(4321.5),
        },
        new InstanceMetrics
        {
            Uuid = new Guid("0190a6e0-0000-7000-8000-000000000002"),
            Name = "idle",
            State = InstanceState.Stopped,
            WakeupLatency = [.. WakeupBucket.UpperBounds.Select(bound => new WakeupBucket(bound, 0)), new WakeupBucket(UpperBound: null, 0)],
        },
    ];

    [Fact]
    public void Prometheus_text_has_the_public_names() => Snapshot.Match(MetricsExposition.ToPrometheusText(Two));

    [Fact]
    public void Json_has_the_public_fields_and_leaves_out_what_is_unset()
    {
        using JsonDocument document = JsonDocument.Parse(MetricsExposition.ToJson(Two));
        Snapshot.Match(JsonSerializer.Serialize(document, JsonSerializerOptions.Web).Replace(",\"", ",\n\"", StringComparison.Ordinal));
    }

    [Fact]
    public void An_instance_that_is_asked_for_twice_has_its_samples_once() =>
        Assert.Equal(MetricsExposition.ToPrometheusText(Two), MetricsExposition.ToPrometheusText([.. Two, Two[0]]));

    [Fact]
    public void No_instance_is_an_empty_document()
    {
        Assert.Equal("[]", MetricsExposition.ToJson([]));
        Assert.DoesNotContain("instance_uuid", MetricsExposition.ToPrometheusText([]), StringComparison.Ordinal);
    }
}

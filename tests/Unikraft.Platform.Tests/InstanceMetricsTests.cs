using System.Diagnostics.Metrics;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Diagnostics;

namespace Unikraft.Platform.Tests;

public sealed class InstanceMetricsTests
{
    private static readonly TimeSpan Latency = TimeSpan.FromMilliseconds(3);

    [Fact]
    public async Task Metrics_are_those_of_the_instance()
    {
        await using TestPlatform test = new();
        Instance instance = await test.CreateCounterAsync();
        test.Time.Advance(TimeSpan.FromSeconds(61));
        using IInstanceConnection one = await test.Instances.ConnectAsync(instance.Uuid).Guarded();
        (await test.Instances.ConnectAsync(instance.Uuid).Guarded()).Dispose();

        InstanceMetrics running = Assert.Single(test.Instances.GetMetrics(instance.Uuid));

        Assert.Equal((instance.Uuid, instance.Name, InstanceState.Running), (running.Uuid, running.Name, running.State));
        Assert.Equal((1, 0, instance.StartedAt, null), (running.StartCount, running.RestartCount, running.StartedAt, running.StoppedAt));
        Assert.Equal((TimeSpan.FromSeconds(61), instance.BootTime, null), (running.Uptime, running.BootTime, running.NetTime));
        Assert.Equal((1, 0, 0, 2L), (running.Connections, running.Requests, running.Queued, running.TotalConnections));
        Assert.Equal((0L, 0L, 0L, 0L), (running.RxBytes, running.RxPackets, running.TxBytes, running.TxPackets));

        await test.Instances.StopAsync(instance.Uuid).Guarded();
        InstanceMetrics stopped = Assert.Single(test.Instances.GetMetrics());
        Assert.Equal((InstanceState.Stopped, 0, 2L, 0L), (stopped.State, stopped.Connections, stopped.TotalConnections, stopped.RssBytes));
        Assert.NotNull(stopped.StoppedAt);
        await test.Instances.StartAsync(instance.Uuid).Guarded();
        Assert.Equal(0, Assert.Single(test.Instances.GetMetrics()).TotalConnections);
    }

    [Fact]
    public async Task Metrics_of_one_several_or_all_instances_come_in_the_order_asked_for()
    {
        await using TestPlatform test = new();
        foreach (string name in new[] { "a", "b", "c" })
        {
            await test.Instances.CreateAsync(TestPlatform.Request("counter") with { Name = name, Autostart = false }).Guarded();
        }

        Assert.Equal(["a", "b", "c"], test.Instances.GetMetrics().Select(metrics => metrics.Name));
        Assert.Equal(["c", "a"], test.Instances.GetMetrics("c", "a").Select(metrics => metrics.Name));
        Assert.Throws<ResourceNotFoundException>(() => test.Instances.GetMetrics("a", "nobody"));
    }

    [Fact]
    public async Task A_wake_up_is_counted_in_the_bucket_of_its_latency()
    {
        await using TestPlatform test = new(backend => backend.RestoreLatency = Latency);
        Instance instance = await test.Instances.CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with
        {
            ScaleToZero = new ScaleToZero(Stateful: true, TimeSpan.FromHours(1)),
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        Assert.Equal(14, Assert.Single(test.Instances.GetMetrics()).WakeupLatency.Length);
        await test.Instances.SuspendAsync(instance.Uuid).Guarded();

        Task<IInstanceConnection> connecting = test.Instances.ConnectAsync(instance.Uuid);
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Assert.Equal(1, Assert.Single(test.Instances.GetMetrics()).Queued);
        test.Time.Advance(Latency);
        using IInstanceConnection connection = await connecting.Guarded();

        InstanceMetrics metrics = Assert.Single(test.Instances.GetMetrics());
        WakeupBucket counted = Assert.Single(metrics.WakeupLatency, bucket => bucket.Count > 0);
        Assert.Equal((TimeSpan.FromMilliseconds(4), 1L, Latency, 0), (counted.UpperBound, counted.Count, metrics.WakeupLatencySum, metrics.Queued));
    }

    [Fact]
    public async Task Every_metric_is_told_through_the_one_meter()
    {
        await using TestPlatform test = new();
        Dictionary<string, double> measured = new(StringComparer.Ordinal);
        using MeterListener listener = new()
        {
            InstrumentPublished = (instrument, self) =>
            {
                if (instrument.Meter == test.Platform.Telemetry.Meter)
                {
                    self.EnableMeasurementEvents(instrument);
                }
            },
        };
        listener.SetMeasurementEventCallback<double>((instrument, value, _, _) => measured[instrument.Name] = value);
        listener.Start();
        Instance instance = await test.CreateCounterAsync();
        await test.Instances.StopAsync(instance.Uuid).Guarded();
        await test.Instances.StartAsync(instance.Uuid).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(5));
        using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();

        measured.Clear();
        listener.RecordObservableInstruments();

        InstanceMetrics metrics = Assert.Single(test.Instances.GetMetrics());
        Assert.Equal(
            InstanceMetric.All.Where(metric => metric is { MeterName: not null } && metric.Value(metrics) is not null)
                .ToDictionary(metric => metric.MeterName!, metric => metric.Value(metrics)!.Value, StringComparer.Ordinal),
            measured);
    }
}

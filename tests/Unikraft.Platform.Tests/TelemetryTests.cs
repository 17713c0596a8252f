using System.Diagnostics;
using System.Diagnostics.Metrics;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed class TelemetryTests
{
    [Fact]
    public async Task Metrics_tell_what_happened()
    {
        await using TestPlatform test = new();
        List<(string Name, double Value, string? Tag)> measured = [];
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
        listener.SetMeasurementEventCallback<double>((instrument, value, tags, _) => Add(instrument, value, tags));
        listener.SetMeasurementEventCallback<long>((instrument, value, tags, _) => Add(instrument, value, tags));
        listener.Start();

        Instance source = await test.CreateCounterAsync();
        await test.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid }).Guarded();
        await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await test.Instances
            .CreateAsync(TestPlatform.Request("counter") with { Autostart = false, Autokill = new AutokillPolicy(TimeSpan.FromSeconds(1)) })
            .Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(1));
        await test.Instances.StopAsync(source.Uuid).Guarded();
        listener.RecordObservableInstruments();
        // Deleting waits for all that follows a stop.
        await test.Instances.DeleteAsync(source.Uuid).Guarded();

        lock (measured)
        {
            Assert.Equal(["boot", "restore"], Tags("unikraft.instance.start.duration"));
            Assert.Equal(["-UPAK"], Tags("unikraft.instance.stops"));
            Assert.Equal(["running", "stopped"], Tags("unikraft.instances"));
            Assert.Equal(1, measured.Single(entry => string.Equals(entry.Name, "unikraft.checkpoints", StringComparison.Ordinal)).Value);
            Assert.Equal(["instance"], Tags("unikraft.autokills"));
            Assert.Equal(2, Tags("unikraft.checkpoint.pause").Count());
        }

        void Add(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            lock (measured)
            {
                measured.Add((instrument.Name, value, tags.IsEmpty ? null : tags[0].Value?.ToString()));
            }
        }

        IEnumerable<string?> Tags(string name) => measured
            .Where(entry => string.Equals(entry.Name, name, StringComparison.Ordinal))
            .Select(entry => entry.Tag)
            .Order(StringComparer.Ordinal);
    }

    [Fact]
    public async Task Activities_name_the_instance()
    {
        await using TestPlatform test = new();
        List<Activity> activities = [];
        using ActivityListener listener = new()
        {
            ShouldListenTo = source => string.Equals(source.Name, "Unikraft.Platform", StringComparison.Ordinal),
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = activity =>
            {
                lock (activities)
                {
                    activities.Add(activity);
                }
            },
        };
        ActivitySource.AddActivityListener(listener);

        Instance instance = await test.CreateCounterAsync();
        await test.Instances.StopAsync(instance.Uuid).Guarded();

        lock (activities)
        {
            // Other tests are heard as well.
            Assert.Equal(
                ["instance.start", "instance.create", "instance.stop"],
                activities.Where(activity => Equals(activity.GetTagItem("unikraft.instance.uuid"), instance.Uuid)).Select(activity => activity.OperationName));
        }
    }

    [Fact]
    public async Task Every_long_operation_is_traced()
    {
        await using TestPlatform test = new();
        List<(string Name, object? Of)> activities = [];
        using ActivityListener listener = new()
        {
            ShouldListenTo = source => string.Equals(source.Name, "Unikraft.Platform", StringComparison.Ordinal),
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = activity =>
            {
                lock (activities)
                {
                    activities.Add((activity.OperationName, activity.GetTagItem("unikraft.instance.uuid")));
                }
            },
        };
        ActivitySource.AddActivityListener(listener);

        Instance source = await test.CreateCounterAsync();
        Instance branch = await test.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid }).Guarded();
        Checkpoint checkpoint = await test.Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        await test.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = checkpoint.Uuid }).Guarded();
        Template template = await test.Templates.ConvertAsync(branch.Uuid).Guarded();
        await test.Instances.CreateAsync(new CreateInstanceRequest { Template = template.Uuid }).Guarded();
        await test.Instances.SuspendAsync(source.Uuid).Guarded();
        await test.Instances.StartAsync(source.Uuid).Guarded();
        await test.Instances.StopAsync(source.Uuid).Guarded();

        lock (activities)
        {
            Assert.Equal(
                [
                    "instance.branch",
                    "instance.capture",
                    "instance.capture",
                    "instance.capture",
                    "instance.create",
                    "instance.start",
                    "instance.start",
                    "instance.stop",
                    "instance.suspend",
                ],
                Names(source.Uuid));
            Assert.Equal(["checkpoint.create", "checkpoint.load"], Names(checkpoint.Uuid));
            Assert.Contains("template.clone", Names(template.Uuid));
        }

        IEnumerable<string> Names(Guid uuid) => activities
            .Where(activity => Equals(activity.Of, uuid))
            .Select(activity => activity.Name)
            .Order(StringComparer.Ordinal);
    }
}

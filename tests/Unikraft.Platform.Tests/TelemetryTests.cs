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

    /// <summary>Whoever starts an instance does not keep its restarts in his trace, nor what he has in his context in memory.</summary>
    [Fact]
    public async Task A_restart_is_no_part_of_what_has_started_the_instance()
    {
        await using TestPlatform test = new();
        List<Activity> starts = [];
        using ActivityListener listener = new()
        {
            ShouldListenTo = static source => source.Name is "Unikraft.Platform" or "caller",
            Sample = static (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = activity =>
            {
                lock (starts)
                {
                    starts.Add(activity);
                }
            },
        };
        ActivitySource.AddActivityListener(listener);
        using ActivitySource source = new("caller");
        Instance instance;
        ActivitySpanId caller;
        using (Activity? request = source.StartActivity("request"))
        {
            caller = request!.SpanId;
            instance = await test.Instances.CreateAsync(TestPlatform.Request("crash", "div0") with { RestartPolicy = RestartPolicy.Always }).Guarded();
        }

        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(5)).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(5));
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(10)).Guarded();

        lock (starts)
        {
            Activity create = Assert.Single(starts, activity => Is(activity, "instance.create"));
            Assert.Equal(caller, create.ParentSpanId);
            Activity[] all = [.. starts.Where(activity => Is(activity, "instance.start"))];
            Assert.Equal(3, all.Length);
            Assert.Equal(create.TraceId, all[0].TraceId);
            Assert.Empty(all[0].Links);
            for (int i = 1; i < all.Length; i++)
            {
                Assert.Equal(default, all[i].ParentSpanId);
                Assert.Equal(all[i - 1].Context, Assert.Single(all[i].Links).Context);
            }

            Assert.Equal(3, all.Select(static start => start.TraceId).Distinct().Count());
        }

        bool Is(Activity activity, string name) =>
            string.Equals(activity.OperationName, name, StringComparison.Ordinal) && Equals(activity.GetTagItem("unikraft.instance.uuid"), instance.Uuid);
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

    [Fact]
    public async Task A_load_is_traced_from_its_opening_to_vcpus_that_run()
    {
        await using TestPlatform test = new(backend => backend.RestoreLatency = TimeSpan.FromSeconds(3));
        using Traces traces = new();
        Instance source = await test.CreateCounterAsync();
        Checkpoint checkpoint = await test.Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();

        Instance load = await RestoreAsync(new CreateInstanceRequest { Checkpoint = checkpoint.Uuid });
        Instance branch = await RestoreAsync(new CreateInstanceRequest { BranchFrom = source.Uuid });
        Template template = await test.Templates.ConvertAsync(source.Uuid).Guarded();
        Instance clone = await RestoreAsync(new CreateInstanceRequest { Template = template.Uuid });

        AssertTrace("checkpoint.load", checkpoint.Uuid, load);
        AssertTrace("instance.branch", source.Uuid, branch);
        AssertTrace("template.clone", template.Uuid, clone);
        Assert.Equal(traces.Single("instance.branch", source.Uuid).SpanId, traces.All("instance.capture", source.Uuid)[1].ParentSpanId);
        Assert.Equal(traces.Single("template.create", source.Uuid).SpanId, traces.All("instance.capture", source.Uuid)[2].ParentSpanId);

        async Task<Instance> RestoreAsync(CreateInstanceRequest request)
        {
            Task<Instance> creation = test.Instances.CreateAsync(request);
            await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(3)).Guarded();
            test.Time.Advance(TimeSpan.FromSeconds(3));
            return await creation.Guarded();
        }

        void AssertTrace(string name, Guid of, Instance made)
        {
            Activity create = traces.Single("instance.create", made.Uuid);
            Activity restore = traces.Single(name, of);
            Activity start = traces.Single("instance.start", made.Uuid);
            Assert.Equal((create.SpanId, restore.SpanId), (restore.ParentSpanId, start.ParentSpanId));
            Assert.Equal((create.TraceId, create.TraceId), (restore.TraceId, start.TraceId));
            Assert.All([create, restore, start], activity =>
            {
                Assert.Equal(made.CreatedAt.UtcDateTime, activity.StartTimeUtc);
                Assert.Equal(TimeSpan.FromSeconds(3), activity.Duration);
                Assert.Equal(ActivityStatusCode.Unset, activity.Status);
            });
        }
    }

    [Fact]
    public async Task A_load_that_fails_is_a_trace_that_says_so()
    {
        await using TestPlatform test = new(backend => backend.RestoreFailure = static _ => new HypervisorException("out of order"));
        using Traces traces = new();
        Instance source = await test.CreateCounterAsync();
        Checkpoint checkpoint = await test.Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();

        await Assert.ThrowsAsync<HypervisorException>(
            () => test.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = checkpoint.Uuid }).Guarded());

        Activity load = traces.Single("checkpoint.load", checkpoint.Uuid);
        Activity create = traces.Of(load.ParentSpanId);
        Activity start = traces.ChildOf(load);
        Assert.Equal(("instance.create", "instance.start"), (create.OperationName, start.OperationName));
        Assert.All([create, load, start], activity =>
        {
            Assert.Equal((ActivityStatusCode.Error, "out of order"), (activity.Status, activity.StatusDescription));
            Assert.Equal("Unikraft.Platform.HypervisorException", activity.GetTagItem("error.type"));
        });
    }

    [Fact]
    public async Task The_trace_of_a_checkpoint_ends_when_it_is_ready_whether_or_not_somebody_waits()
    {
        await using TestPlatform test = new(backend => backend.CaptureLatency = TimeSpan.FromSeconds(7));
        using Traces traces = new();
        Instance source = await test.CreateCounterAsync();

        Checkpoint checkpoint = await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid }).Guarded();

        Assert.Equal(CheckpointState.Starting, checkpoint.State);
        Assert.Empty(traces.All("checkpoint.create", checkpoint.Uuid));
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(7)).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(7));
        await test.Checkpoints.WaitAsync(checkpoint.Uuid).Guarded();
        Activity create = traces.Single("checkpoint.create", checkpoint.Uuid);
        Activity capture = traces.Single("instance.capture", source.Uuid);
        Assert.Equal(create.SpanId, capture.ParentSpanId);
        Assert.Equal((TimeSpan.FromSeconds(7), TimeSpan.FromSeconds(7)), (create.Duration, capture.Duration));
        Assert.Equal(ActivityStatusCode.Unset, create.Status);

        // Of a stopped instance nothing is captured, and it is ready at once.
        await test.Instances.StopAsync(source.Uuid).Guarded();
        Checkpoint stopped = await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid }).Guarded();
        Assert.Equal(ActivityStatusCode.Unset, traces.Single("checkpoint.create", stopped.Uuid).Status);
    }

    [Fact]
    public async Task The_trace_of_a_checkpoint_that_fails_says_so()
    {
        await using TestPlatform test = new(backend => backend.CaptureFailure = static _ => new HypervisorException("no room"));
        using Traces traces = new();
        Instance source = await test.CreateCounterAsync();

        await Assert.ThrowsAsync<PlatformException>(
            () => test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded());

        Activity capture = traces.Single("instance.capture", source.Uuid);
        Activity create = traces.Of(capture.ParentSpanId);
        Assert.Equal("checkpoint.create", create.OperationName);
        Assert.Equal((ActivityStatusCode.Error, "no room"), (create.Status, create.StatusDescription));
        Assert.Equal((ActivityStatusCode.Error, "no room"), (capture.Status, capture.StatusDescription));

        await Assert.ThrowsAsync<HypervisorException>(
            () => test.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid }).Guarded());
        Assert.Equal(ActivityStatusCode.Error, traces.Single("instance.branch", source.Uuid).Status);

        // One that is not even begun.
        await test.Instances.StopAsync(source.Uuid, StopRequest.Forced).Guarded();
        await Assert.ThrowsAsync<WrongStateException>(() => test.Instances.SuspendAsync(source.Uuid).Guarded());
        Assert.Equal(ActivityStatusCode.Error, traces.Single("instance.suspend", source.Uuid).Status);
    }

    [Fact]
    public async Task A_start_and_a_stop_that_are_refused_are_traces_that_say_so()
    {
        await using TestPlatform test = new();
        using Traces traces = new();
        Instance running = await test.CreateCounterAsync();

        await Assert.ThrowsAsync<WrongStateException>(() => test.Instances.StartAsync(running.Uuid).Guarded());
        using CancellationTokenSource cancelled = new();
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => test.Instances.StopAsync(running.Uuid, cancellationToken: cancelled.Token).Guarded());

        Assert.Equal(
            [ActivityStatusCode.Unset, ActivityStatusCode.Error],
            traces.All("instance.start", running.Uuid).Select(activity => activity.Status));
        Assert.Equal(ActivityStatusCode.Error, traces.Single("instance.stop", running.Uuid).Status);
    }

    [Fact]
    public async Task A_creation_that_is_cancelled_while_it_waits_is_a_trace_that_says_so()
    {
        await using TestPlatform test = new(static options => options.Guests["slow"] = static () => new SlowBootGuest());
        using Traces traces = new();
        using CancellationTokenSource cancellation = new();
        Task<Instance> creation = test.Instances.CreateAsync(TestPlatform.Request("slow") with { Name = "one", WaitTimeout = TimeSpan.FromSeconds(30) }, cancellation.Token);
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(30)).Guarded();
        Guid uuid = test.Instances.Get("one").Uuid;
        Assert.Empty(traces.All("instance.create", uuid));

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => creation.Guarded());
        Assert.Equal(ActivityStatusCode.Error, traces.Single("instance.create", uuid).Status);
    }

    /// <summary>The one that it follows is the one that has failed.</summary>
    [Fact]
    public async Task A_restart_after_one_that_has_failed_says_which_one()
    {
        Exception? failure = null;
        await using TestPlatform test = new(backend => backend.CreateFailure = _ => failure);
        using Traces traces = new();
        Instance instance = await test.Instances
            .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with { RestartPolicy = RestartPolicy.Always, WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        failure = new HypervisorException("out of order");
        await using (ConsoleSession console = new(test.Instances.AttachConsole(instance.Uuid)))
        {
            Task<Instance> stopped = test.WaitAsync(instance.Uuid, InstanceState.Stopped);
            await console.WriteLineAsync("exit 0");
            await stopped;
        }

        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(5)).Guarded();
        failure = null;
        test.Time.Advance(TimeSpan.FromSeconds(5));

        Activity[] starts = await traces.WaitAsync("instance.start", instance.Uuid, count: 3).Guarded();
        Assert.Equal([ActivityStatusCode.Unset, ActivityStatusCode.Error, ActivityStatusCode.Unset], starts.Select(static start => start.Status));
        Assert.Equal(
            [starts[0].Context, starts[1].Context],
            starts[1..].Select(static start => Assert.Single(start.Links).Context));
    }

    [Fact]
    public async Task A_creation_that_takes_too_long_is_a_trace_that_says_so()
    {
        await using TestPlatform test = new(static options => options.Guests["slow"] = static () => new SlowBootGuest());
        using Traces traces = new();
        Task<Instance> creation = test.Instances.CreateAsync(TestPlatform.Request("slow") with { Name = "one", WaitTimeout = TimeSpan.FromSeconds(30) });
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(30)).Guarded();
        Guid uuid = test.Instances.Get("one").Uuid;

        test.Time.Advance(TimeSpan.FromSeconds(30));

        OperationTimedOutException error = await Assert.ThrowsAsync<OperationTimedOutException>(() => creation.Guarded());
        Activity create = traces.Single("instance.create", uuid);
        Assert.Equal((ActivityStatusCode.Error, error.Message), (create.Status, create.StatusDescription));
        Assert.Equal("Unikraft.Platform.OperationTimedOutException", create.GetTagItem("error.type"));
    }

    /// <summary>The traces that have ended. Those of other tests are among them, with instances of their own.</summary>
    private sealed class Traces : IDisposable
    {
        private readonly List<Activity> _ended = [];
        private readonly ActivityListener _listener;
        private TaskCompletionSource _next = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Traces()
        {
            _listener = new ActivityListener
            {
                ShouldListenTo = source => string.Equals(source.Name, "Unikraft.Platform", StringComparison.Ordinal),
                Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
                ActivityStopped = activity =>
                {
                    TaskCompletionSource next = new(TaskCreationOptions.RunContinuationsAsynchronously);
                    lock (_ended)
                    {
                        _ended.Add(activity);
                        (_next, next) = (next, _next);
                    }

                    next.SetResult();
                },
            };
            ActivitySource.AddActivityListener(_listener);
        }

        /// <summary>Waits until so many have ended.</summary>
        public async Task<Activity[]> WaitAsync(string name, Guid of, int count)
        {
            while (true)
            {
                Task next;
                lock (_ended)
                {
                    next = _next.Task;
                }

                if (All(name, of) is { } all && all.Length >= count)
                {
                    return all;
                }

                await next.ConfigureAwait(false);
            }
        }

        public Activity[] All(string name, Guid of) =>
            [.. Ended().Where(activity => string.Equals(activity.OperationName, name, StringComparison.Ordinal) && Equals(activity.GetTagItem("unikraft.instance.uuid"), of))];

        public Activity Single(string name, Guid of) => Assert.Single(All(name, of));

        public Activity Of(ActivitySpanId span) => Assert.Single(Ended(), activity => activity.SpanId == span);

        public Activity ChildOf(Activity parent) => Assert.Single(Ended(), activity => activity.ParentSpanId == parent.SpanId);

        public void Dispose() => _listener.Dispose();

        private Activity[] Ended()
        {
            lock (_ended)
            {
                return [.. _ended];
            }
        }
    }
}

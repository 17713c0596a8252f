using Unikraft.Platform.Contracts;
using Unikraft.Platform.InMemory;

namespace Unikraft.Platform.Tests;

public sealed class InstanceFailureTests
{
    private static readonly TimeSpan Latency = TimeSpan.FromSeconds(3);

    [Fact]
    public async Task A_machine_that_cannot_be_made_leaves_no_instance_and_a_free_name()
    {
        HypervisorException refusal = new("the host is full");
        bool fails = true;
        await using TestPlatform test = new(options =>
        {
            options.CreateFailure = _ => fails ? refusal : null;
            options.RestoreFailure = _ => fails ? refusal : null;
        });
        CreateInstanceRequest request = TestPlatform.Request("counter", "--period-ms", "0") with { Name = "free" };

        Assert.Same(refusal, await Assert.ThrowsAsync<HypervisorException>(() => test.Instances.CreateAsync(request).Guarded()));
        Assert.Empty(test.Instances.List());
        fails = false;
        Instance source = await test.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        fails = true;
        CreateInstanceRequest branch = new() { Name = "branch", BranchFrom = "free" };
        await Assert.ThrowsAsync<HypervisorException>(() => test.Instances.CreateAsync(branch).Guarded());

        Assert.Equal([source.Uuid], test.Instances.List().Select(instance => instance.Uuid));
        Assert.Equal(0, test.Snapshots);
        fails = false;
        await test.Instances.CreateAsync(branch).Guarded();
    }

    [Fact]
    public async Task A_start_that_fails_keeps_the_snapshot_for_the_next_one()
    {
        bool fails = true;
        await using TestPlatform test = new(options =>
            options.RestoreFailure = _ => fails ? new HypervisorException("not now") : null);
        Instance source = await test.CreateCounterAsync();
        await using ConsoleSession console = new(test.Instances.AttachConsole(source.Uuid));
        CounterTick first = await console.TickAsync();
        Instance branch = await test.Instances
            .CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid, Autostart = false })
            .Guarded();

        await Assert.ThrowsAsync<HypervisorException>(() => test.Instances.StartAsync(branch.Uuid).Guarded());
        Assert.Equal(branch, test.Instances.Get(branch.Uuid));
        fails = false;
        await test.Instances.StartAsync(branch.Uuid).Guarded();

        await using ConsoleSession branched = new(test.Instances.AttachConsole(branch.Uuid));
        CounterTick tick = await branched.TickAsync();
        Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick));
        Assert.Equal(0, test.Snapshots);
    }

    [Fact]
    public async Task Cancelling_a_creation_leaves_nothing()
    {
        await using TestPlatform test = new(options => options.CreateLatency = Latency);
        using CancellationTokenSource cancellation = new();
        Task<Instance> creation = test.Instances.CreateAsync(TestPlatform.Request("hello") with { Name = "free" }, cancellation.Token);
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Assert.Empty(test.Instances.List());
        await Assert.ThrowsAsync<NameConflictException>(
            () => test.Instances.CreateAsync(TestPlatform.Request("hello") with { Name = "free" }).Guarded());

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => creation.Guarded());
        Assert.Empty(test.Instances.List());
        Assert.Equal(0, test.Machines);
        await test.Instances.CreateAsync(TestPlatform.Request("hello") with { Name = "free", Autostart = false }).Guarded();
    }

    [Fact]
    public async Task Cancelling_the_wait_for_running_removes_the_instance()
    {
        await using TestPlatform test = new(options => options.Guests["slow"] = () => new SlowBootGuest());
        using CancellationTokenSource cancellation = new();
        Task<Instance> creation = test.Instances.CreateAsync(
            TestPlatform.Request("slow") with { Name = "free", WaitTimeout = TimeSpan.FromSeconds(30) },
            cancellation.Token);
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(30)).Guarded();
        Assert.Equal(InstanceState.Starting, test.Instances.Get("free").State);

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => creation.Guarded());
        Assert.Empty(test.Instances.List());
        Assert.Equal(0, test.Machines);
    }

    [Fact]
    public async Task A_wait_for_running_that_takes_too_long_leaves_the_instance_starting()
    {
        await using TestPlatform test = new(options => options.Guests["slow"] = () => new SlowBootGuest());
        Task<Instance> creation = test.Instances.CreateAsync(
            TestPlatform.Request("slow") with { Name = "slow", WaitTimeout = TimeSpan.FromSeconds(30) });
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(30)).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(30));

        OperationTimedOutException error = await Assert.ThrowsAsync<OperationTimedOutException>(() => creation.Guarded());

        Assert.Equal("Operation timed out: instance 'slow' is in state 'starting', not 'running'", error.Message);
        Assert.Null(error.Instance.BootTime);
        Task<Instance> running = test.WaitAsync("slow", InstanceState.Running);
        await using ConsoleSession console = new(test.Instances.AttachConsole("slow"));
        await console.WriteLineAsync("go");
        Assert.Equal(TimeSpan.FromSeconds(30), (await running).BootTime);
    }

    [Fact]
    public async Task A_guest_that_dies_before_main_ends_the_wait_for_running()
    {
        await using TestPlatform test = new(options => options.Guests["slow"] = () => new SlowBootGuest());
        Task<Instance> creation = test.Instances.CreateAsync(
            TestPlatform.Request("slow") with { Name = "slow", WaitTimeout = TimeSpan.FromSeconds(30) });
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(30)).Guarded();
        await using ConsoleSession console = new(test.Instances.AttachConsole("slow"));
        await console.WriteLineAsync("die");

        WrongStateException error = await Assert.ThrowsAsync<WrongStateException>(() => creation.Guarded());

        Assert.Equal(
            "Instance 'slow' stopped before it was running: stop reason ----K (1), stop code HWERR errno=5 initlvl=0",
            error.Message);
        Assert.Equal(InstanceState.Stopped, test.Instances.Get("slow").State);
    }

    [Fact]
    public async Task A_starting_instance_can_be_stopped_but_neither_branched_nor_checkpointed()
    {
        await using TestPlatform test = new(options => options.Guests["slow"] = () => new SlowBootGuest());
        await test.Instances.CreateAsync(TestPlatform.Request("slow") with { Name = "slow" }).Guarded();

        WrongStateException branch = await Assert.ThrowsAsync<WrongStateException>(
            () => test.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = "slow" }).Guarded());
        WrongStateException checkpoint = await Assert.ThrowsAsync<WrongStateException>(
            () => test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "slow", Name = "free" }).Guarded());

        Assert.Equal(("Cannot branch from VM in state 'starting'", InstanceState.Starting), (branch.Message, branch.State));
        Assert.Equal("Failed to allocate checkpoint: instance 'slow' is in state 'starting'", checkpoint.Message);
        Assert.Empty(test.Checkpoints.List());
        Instance stopped = await test.Instances.StopAsync("slow").Guarded();
        Assert.Equal("-UPAK", stopped.StopReason!.Value.ToMask());
        Assert.Null(stopped.BootTime);
    }

    [Theory]
    [InlineData(false, "-UP--")]
    [InlineData(true, "FUP--")]
    public async Task A_stop_that_comes_before_there_is_a_machine_ends_the_start(bool force, string reason)
    {
        InMemoryHypervisorOptions? backend = null;
        await using TestPlatform test = new(options => backend = options);
        Instance instance = await test.Instances.CreateAsync(TestPlatform.Request("hello") with { Name = "late", Autostart = false }).Guarded();
        backend!.CreateLatency = Latency;
        Task<Instance> start = test.Instances.StartAsync("late");
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Assert.Equal(InstanceState.Starting, test.Instances.Get("late").State);

        Instance stopped = await test.Instances.StopAsync("late", new StopRequest { Force = force }).Guarded();

        WrongStateException error = await Assert.ThrowsAsync<WrongStateException>(() => start.Guarded());
        Assert.Equal("Instance 'late' was stopped while it was starting", error.Message);
        Assert.Equal((InstanceState.Stopped, reason, 1), (stopped.State, stopped.StopReason!.Value.ToMask(), stopped.StartCount));
        Assert.Equal(instance.Uuid, stopped.Uuid);
    }

    [Fact]
    public async Task A_cancelled_start_leaves_the_instance_as_it_was()
    {
        InMemoryHypervisorOptions? backend = null;
        await using TestPlatform test = new(options => backend = options);
        Instance instance = await test.Instances.CreateAsync(TestPlatform.Request("hello") with { Autostart = false }).Guarded();
        backend!.CreateLatency = Latency;
        using CancellationTokenSource cancellation = new();
        Task<Instance> start = test.Instances.StartAsync(instance.Uuid, cancellation.Token);
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => start.Guarded());
        Assert.Equal(instance, test.Instances.Get(instance.Uuid));
    }

    [Fact]
    public async Task Snapshots_wait_for_their_turn_when_they_are_asked_to()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        Instance source = await test.CreateCounterAsync();
        SnapshotOptions patient = new() { WaitForPending = true };
        Task<Instance> first = test.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid });
        Task<Checkpoint> second = test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid, Name = "second", Snapshot = patient });
        using CancellationTokenSource cancellation = new();
        Task<Instance> given = test.Instances.CreateAsync(
            new CreateInstanceRequest { BranchFrom = source.Uuid, Snapshot = patient }, cancellation.Token);
        Task<Checkpoint> third = test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid, Name = "third", Snapshot = patient });
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Assert.False(second.IsCompleted);
        await cancellation.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => given.Guarded());

        test.Time.Advance(Latency);
        await first.Guarded();
        Assert.Equal(CheckpointState.Starting, (await second.Guarded()).State);
        Assert.False(third.IsCompleted);
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        test.Time.Advance(Latency);
        await test.Checkpoints.WaitAsync("second").Guarded();
        await third.Guarded();
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        test.Time.Advance(Latency);
        await test.Checkpoints.WaitAsync("third").Guarded();

        // The turn is free again, and the history is in the order of the turns.
        Assert.Equal(["third", "second"], test.Instances.GetHistory(source.Uuid).Select(checkpoint => checkpoint.Name));
        Task<Instance> last = test.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid });
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        test.Time.Advance(Latency);
        await last.Guarded();
    }

    [Fact]
    public async Task A_snapshot_that_waits_for_its_turn_ends_with_its_instance()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        Instance source = await test.CreateCounterAsync();
        Task<Instance> first = test.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid });
        Task<Instance> waiting = test.Instances.CreateAsync(
            new CreateInstanceRequest { BranchFrom = source.Uuid, Snapshot = new SnapshotOptions { WaitForPending = true } });
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        await test.Instances.DeleteAsync(source.Uuid).Guarded();

        await Assert.ThrowsAnyAsync<PlatformException>(() => first.Guarded());
        await Assert.ThrowsAnyAsync<PlatformException>(() => waiting.Guarded());
    }

    [Fact]
    public async Task A_snapshot_that_is_pending_is_told_and_the_next_one_succeeds()
    {
        InMemoryHypervisorOptions? backend = null;
        await using TestPlatform test = new(options => (backend = options).CaptureLatency = Latency);
        Instance source = await test.CreateCounterAsync();
        CreateInstanceRequest branch = new() { BranchFrom = source.Uuid };
        Task<Instance> first = test.Instances.CreateAsync(branch);
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        PlatformException pending = await Assert.ThrowsAsync<PlatformException>(() => test.Instances.CreateAsync(branch).Guarded());
        PlatformException checkpoint = await Assert.ThrowsAsync<PlatformException>(
            () => test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid }).Guarded());

        Assert.Equal("Cannot branch from VM with pending snapshot", pending.Message);
        Assert.Equal((PlatformErrorCode.SnapshotPending, true), (pending.Code, pending.IsTransient));
        Assert.Equal(PlatformErrorCode.SnapshotPending, checkpoint.Code);
        Assert.StartsWith("Failed to allocate checkpoint: ", checkpoint.Message, StringComparison.Ordinal);
        test.Time.Advance(Latency);
        await first.Guarded();
        backend!.CaptureLatency = TimeSpan.Zero;
        await test.Instances.CreateAsync(branch).Guarded();
    }

    [Fact]
    public async Task A_source_that_stops_while_its_snapshot_is_taken_is_told()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        Instance source = await test.CreateCounterAsync();
        Task<Instance> branch = test.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid });
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        await test.Instances.StopAsync(source.Uuid, StopRequest.Forced).Guarded();

        WrongStateException error = await Assert.ThrowsAsync<WrongStateException>(() => branch.Guarded());
        Assert.Equal("Cannot branch from VM in state 'stopped'", error.Message);
        Assert.Single(test.Instances.List());
    }

    [Fact]
    public async Task A_machine_that_fails_stops_the_instance_without_a_reason_and_is_logged()
    {
        await using TestPlatform test = new(options =>
            options.Guests["broken"] = () => new FunctionGuest(_ => throw new InvalidOperationException("the script is wrong")));
        Instance instance = await test.Instances.CreateAsync(TestPlatform.Request("broken")).Guarded();

        Instance stopped = await test.WaitAsync(instance.Uuid, InstanceState.Stopped);
        Assert.Equal((StopReason.None, null, null), (stopped.StopReason, stopped.ExitCode, stopped.StopCode));
        // Deleting waits for all that follows a stop.
        await test.Instances.DeleteAsync(instance.Uuid).Guarded();
        Assert.Contains(test.Errors(), error => error.Contains("the script is wrong", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_triple_fault_is_told_from_a_clean_stop()
    {
        await using TestPlatform test = new(options => options.Guests["triple"] = () => new FunctionGuest(_ => GuestStep.TripleFault));
        Instance instance = await test.Instances.CreateAsync(TestPlatform.Request("triple")).Guarded();

        Instance stopped = await test.WaitAsync(instance.Uuid, InstanceState.Stopped);

        Assert.Equal(("----K", "0x00837F01"), (stopped.StopReason!.Value.ToMask(), stopped.StopCode.ToString()));
    }

    [Fact]
    public async Task A_regular_stop_gives_the_guest_its_grace_period()
    {
        await using TestPlatform test = new(options: options => options.StopGracePeriod = TimeSpan.FromSeconds(7));
        Instance instance = await test.CreateAsync("crash", "ignore-stop");

        Task<Instance> stop = test.Instances.StopAsync(instance.Uuid);
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(7)).Guarded();
        Assert.Equal(InstanceState.Stopping, test.Instances.Get(instance.Uuid).State);
        Assert.False(stop.IsCompleted);
        test.Time.Advance(TimeSpan.FromSeconds(7));

        Assert.Equal("-UP-K", (await stop.Guarded()).StopReason!.Value.ToMask());
        Assert.True(test.HasLogged(1106));
    }

    [Fact]
    public async Task Times_come_from_the_clock_of_the_platform()
    {
        TimeSpan making = TimeSpan.FromTicks(25_000_006);
        TestPlatform? clock = null;
        await using TestPlatform test = new(options => options.CreateFailure = _ =>
        {
            clock!.Time.Advance(making);
            return null;
        });
        clock = test;
        DateTimeOffset started = test.Time.GetUtcNow();
        Instance running = await test.CreateCounterAsync();

        test.Time.Advance(TimeSpan.FromSeconds(60));
        Instance later = test.Instances.Get(running.Uuid);
        Instance stopped = await test.Instances.StopAsync(running.Uuid).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(60));

        Assert.Equal(TimeSpan.FromTicks(25_000_010), running.BootTime);
        Assert.Equal((started, started), (running.CreatedAt, running.StartedAt));
        Assert.Equal(TimeSpan.FromTicks(625_000_006), later.Uptime);
        Assert.Equal(started + later.Uptime, stopped.StoppedAt);
        Assert.Equal(later.Uptime, test.Instances.Get(running.Uuid).Uptime);
    }

    [Fact]
    public async Task Stopping_everything_gives_up_when_there_is_no_more_time()
    {
        await using TestPlatform test = new();
        await test.CreateAsync("crash", "ignore-stop");
        await test.CreateAsync("crash", "loop");
        using CancellationTokenSource cancellation = new();
        Task stop = test.Platform.StopAllAsync(cancellation.Token);
        Assert.False(stop.IsCompleted);

        await cancellation.CancelAsync();
        await stop.Guarded();

        Assert.All(test.Instances.List(), instance => Assert.Equal("F-P--", instance.StopReason!.Value.ToMask()));
        Assert.Equal(0, test.Machines);
    }
}

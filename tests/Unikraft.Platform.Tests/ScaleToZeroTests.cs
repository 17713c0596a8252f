using Unikraft.Platform.Contracts;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed class ScaleToZeroTests
{
    private static readonly TimeSpan Cooldown = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan Tick = TimeSpan.FromTicks(1);

    [Fact]
    public async Task An_instance_without_connections_goes_to_standby_after_its_cooldown()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, stateful: true);
        CounterTick before = await TickAsync(test, instance);
        test.Time.Advance(Cooldown - Tick);
        Assert.Equal(InstanceState.Running, test.Instances.Get(instance.Uuid).State);

        test.Time.Advance(Tick);
        Instance standby = await test.WaitAsync(instance.Uuid, InstanceState.Standby);

        Assert.Equal((StopReason.Platform, true), (standby.StopReason, standby.HasSnapshot));
        Assert.Equal(standby, await test.Instances.WaitAsync(instance.Uuid, InstanceState.Running, TimeSpan.Zero).Guarded());
        using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();
        CounterTick after = await TickAsync(test, instance);
        Assert.Equal((before.Nonce, before.Tick + 1), (after.Nonce, after.Tick));
        // What it was before it woke up is not waited for.
        await Assert.ThrowsAsync<OperationTimedOutException>(
            () => test.Instances.WaitAsync(instance.Uuid, InstanceState.Standby, TimeSpan.Zero).Guarded());
    }

    [Fact]
    public async Task Without_state_the_guest_is_asked_to_shut_down_and_boots_again_with_stop_reason_7()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, stateful: false);
        CounterTick before = await TickAsync(test, instance);

        test.Time.Advance(Cooldown);
        Instance standby = await test.WaitAsync(instance.Uuid, InstanceState.Standby);

        Assert.Equal((7, 0, false), ((int)standby.StopReason!, standby.ExitCode, standby.HasSnapshot));
        using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();
        CounterTick after = await TickAsync(test, instance);
        Assert.Equal(1, after.Tick);
        Assert.NotEqual(before.Nonce, after.Nonce);
    }

    [Fact]
    public async Task A_volume_that_waits_for_a_stop_is_attached_when_standby_ends_in_one()
    {
        using JudgedFolder volumes = new();
        await using TestPlatform test = new(options: options => options.VolumeDirectory = volumes.Path);
        await test.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 8, Filesystem = VolumeFilesystem.None }).Guarded();
        Instance instance = await CreateAsync(test, stateful: false);
        test.Time.Advance(Cooldown);
        await test.WaitAsync(instance.Uuid, InstanceState.Standby);
        Volume waiting = await test.Platform.Volumes.AttachAsync("data", new AttachVolumeRequest { Instance = instance.Uuid, At = "/data" }).Guarded();
        Assert.Equal(VolumeUpdate.Attach, Assert.Single(waiting.AttachedTo).Pending);

        // A branch of it has what it has, which is nothing yet.
        Instance branch = await test.Instances
            .CreateAsync(new CreateInstanceRequest { BranchFrom = instance.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        Assert.Equal((InstanceState.Running, 0), (branch.State, branch.Volumes.Count));
        Instance stopped = await test.Instances.StopAsync(instance.Uuid).Guarded();

        Assert.Equal("/data", Assert.Single(stopped.Volumes).At);
        Volume attached = test.Platform.Volumes.Get("data");
        Assert.Equal((VolumeState.Idle, null), (attached.State, Assert.Single(attached.AttachedTo).Pending));
    }

    [Fact]
    public async Task A_connection_keeps_it_running_and_its_end_begins_the_cooldown()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, stateful: true);
        test.Time.Advance(Cooldown - Tick);
        using (await test.Instances.ConnectAsync(instance.Uuid).Guarded())
        {
            test.Time.Advance(Cooldown * 10);
            Assert.Equal(InstanceState.Running, test.Instances.Get(instance.Uuid).State);
        }

        test.Time.Advance(Cooldown - Tick);
        Assert.Equal(InstanceState.Running, test.Instances.Get(instance.Uuid).State);
        test.Time.Advance(Tick);
        await test.WaitAsync(instance.Uuid, InstanceState.Standby);
    }

    [Fact]
    public async Task A_connection_that_comes_while_the_memory_is_saved_keeps_it_running()
    {
        await using TestPlatform test = new(backend => backend.CaptureLatency = TimeSpan.FromSeconds(1));
        Instance instance = await CreateAsync(test, stateful: true);
        test.Time.Advance(Cooldown);
        // The capture is under way when it is refused to others.
        while (true)
        {
            try
            {
                await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = instance.Uuid }).Guarded();
            }
            catch (PlatformException pending) when (pending.Code == PlatformErrorCode.SnapshotPending)
            {
                break;
            }

            await Task.Yield();
            test.Time.Advance(TimeSpan.FromSeconds(1));
        }

        using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(1));

        await TickAsync(test, instance);
        Assert.Equal((InstanceState.Running, 1), (test.Instances.Get(instance.Uuid).State, test.Instances.Get(instance.Uuid).StartCount));
        Assert.False(connection.Closed.IsCompleted);
    }

    [Fact]
    public async Task A_patched_cooldown_counts_from_the_patch()
    {
        await using TestPlatform test = new();
        Instance instance = await test.CreateCounterAsync();
        test.Time.Advance(Cooldown);
        await test.Instances.PatchAsync(instance.Uuid, [new PatchOperation.SetScaleToZero(new ScaleToZero(Stateful: true, Cooldown))]).Guarded();
        test.Time.Advance(Cooldown - Tick);
        Assert.Equal(InstanceState.Running, test.Instances.Get(instance.Uuid).State);
        test.Time.Advance(Tick);
        await test.WaitAsync(instance.Uuid, InstanceState.Standby);
    }

    [Fact]
    public async Task Many_connections_wake_it_once()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, stateful: true);
        test.Time.Advance(Cooldown);
        await test.WaitAsync(instance.Uuid, InstanceState.Standby);

        IInstanceConnection[] connections = await Task
            .WhenAll(Enumerable.Range(0, 16).Select(_ => Task.Run(() => test.Instances.ConnectAsync(instance.Uuid))))
            .Guarded();

        Assert.Equal((InstanceState.Running, 2), (test.Instances.Get(instance.Uuid).State, test.Instances.Get(instance.Uuid).StartCount));
        Assert.All(connections, connection => Assert.False(connection.Closed.IsCompleted));
    }

    [Fact]
    public async Task A_wake_up_that_fails_is_told_and_leaves_it_in_standby()
    {
        bool fails = false;
        await using TestPlatform test = new(backend => backend.RestoreFailure = _ => fails ? new HypervisorException("no room") : null);
        Instance instance = await CreateAsync(test, stateful: true);
        test.Time.Advance(Cooldown);
        await test.WaitAsync(instance.Uuid, InstanceState.Standby);

        fails = true;
        await Assert.ThrowsAsync<HypervisorException>(() => test.Instances.ConnectAsync(instance.Uuid).Guarded());
        Instance standby = test.Instances.Get(instance.Uuid);
        Assert.Equal((InstanceState.Standby, true, 1), (standby.State, standby.HasSnapshot, standby.StartCount));

        fails = false;
        using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();
        Assert.Equal(InstanceState.Running, test.Instances.Get(instance.Uuid).State);
    }

    [Fact]
    public async Task A_suspension_that_fails_leaves_it_running_and_is_tried_again()
    {
        bool fails = true;
        await using TestPlatform test = new(backend => backend.CaptureFailure = _ => fails ? new HypervisorException("no room") : null);
        Instance instance = await CreateAsync(test, stateful: true);
        await Assert.ThrowsAsync<HypervisorException>(() => test.Instances.SuspendAsync(instance.Uuid).Guarded());
        await TickAsync(test, instance);
        test.Time.Advance(Cooldown);
        while (!test.HasLogged(1112))
        {
            await Task.Yield();
        }

        await TickAsync(test, instance);

        fails = false;
        test.Time.Advance(Cooldown);
        await test.WaitAsync(instance.Uuid, InstanceState.Standby);
    }

    private static Task<Instance> CreateAsync(TestPlatform test, bool stateful) => test.Instances.CreateAsync(
        TestPlatform.Request("counter", "--period-ms", "0") with
        {
            ScaleToZero = new ScaleToZero(stateful, Cooldown),
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();

    private static async Task<CounterTick> TickAsync(TestPlatform test, Instance instance)
    {
        await using ConsoleSession console = new(test.Instances.AttachConsole(instance.Uuid));
        return await console.TickAsync();
    }
}

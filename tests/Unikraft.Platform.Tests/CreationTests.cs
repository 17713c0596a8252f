using Unikraft.Platform.Contracts;
using Unikraft.Platform.InMemory;

namespace Unikraft.Platform.Tests;

public sealed class CreationTests
{
    [Theory]
    [InlineData(1, 1)]
    [InlineData(1000, 1)]
    [InlineData(1001, 2)]
    [InlineData(2999, 3)]
    public async Task The_deprecated_wait_is_rounded_up_to_the_next_full_second(long milliseconds, int seconds)
    {
        await using TestPlatform test = SlowToBoot();
        Task<Instance> creation = test.Instances.CreateAsync(TestPlatform.Request("slow") with { Name = "it", WaitTimeoutMs = milliseconds });
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(seconds)).Guarded();

        test.Time.Advance(TimeSpan.FromSeconds(seconds) - TimeSpan.FromTicks(1));
        Assert.False(creation.IsCompleted);
        test.Time.Advance(TimeSpan.FromTicks(1));

        await Assert.ThrowsAsync<OperationTimedOutException>(() => creation.Guarded());
        Assert.Equal(InstanceState.Starting, test.Instances.Get("it").State);
    }

    [Fact]
    public async Task The_deprecated_wait_is_ignored_beside_the_other_one()
    {
        await using TestPlatform test = SlowToBoot();
        Task<Instance> creation = test.Instances.CreateAsync(
            TestPlatform.Request("slow") with { WaitTimeout = TimeSpan.FromSeconds(3), WaitTimeoutMs = -1 });
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(3)).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(3));
        await Assert.ThrowsAsync<OperationTimedOutException>(() => creation.Guarded());

        // Also when the other one says not to wait.
        Instance at = await test.Instances.CreateAsync(TestPlatform.Request("slow") with { WaitTimeout = TimeSpan.Zero, WaitTimeoutMs = -1 }).Guarded();
        Assert.Equal(InstanceState.Starting, at.State);
    }

    [Fact]
    public async Task A_wait_of_0_is_none()
    {
        await using TestPlatform test = SlowToBoot();
        CreateInstanceRequest slow = TestPlatform.Request("slow");

        Assert.Equal(InstanceState.Starting, (await test.Instances.CreateAsync(slow with { WaitTimeoutMs = 0 }).Guarded()).State);
        Assert.Equal(InstanceState.Starting, (await test.Instances.CreateAsync(slow with { WaitTimeout = TimeSpan.Zero }).Guarded()).State);
        IReadOnlyList<Instance> replicas = await test.Instances.CreateReplicasAsync(slow with { WaitTimeout = TimeSpan.Zero }, replicas: 2).Guarded();
        Assert.Equal([InstanceState.Starting, InstanceState.Starting, InstanceState.Starting], replicas.Select(replica => replica.State));
        // Nothing to wait for is nothing to refuse.
        CreateInstanceRequest stopped = slow with { Autostart = false };
        Assert.Equal(InstanceState.Stopped, (await test.Instances.CreateAsync(stopped with { WaitTimeout = TimeSpan.Zero }).Guarded()).State);
        Assert.Equal(InstanceState.Stopped, (await test.Instances.CreateAsync(stopped with { WaitTimeoutMs = 0 }).Guarded()).State);
        Assert.Equal(0, test.Time.ArmedTimers);
    }

    [Fact]
    public async Task A_checkpoint_with_a_wait_of_0_is_starting()
    {
        await using TestPlatform test = new(backend => backend.CaptureLatency = TimeSpan.FromSeconds(1));
        Instance source = await test.CreateCounterAsync();

        Checkpoint checkpoint = await test.Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = TimeSpan.Zero })
            .Guarded();

        Assert.Equal(CheckpointState.Starting, checkpoint.State);
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(1)).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(CheckpointState.Ready, (await test.Checkpoints.WaitAsync(checkpoint.Uuid).Guarded()).State);
    }

    [Fact]
    public async Task A_creation_does_not_wait_for_running_by_default()
    {
        await using TestPlatform test = SlowToBoot();

        Assert.Equal(InstanceState.Starting, (await test.Instances.CreateAsync(TestPlatform.Request("slow")).Guarded()).State);
    }

    [Fact]
    public async Task Of_replicas_of_which_one_fails_none_remains()
    {
        int machines = 0;
        await using TestPlatform test = new(backend => backend.CreateFailure = _ =>
            Interlocked.Increment(ref machines) == 3 ? new HypervisorException("no room") : null);

        await Assert.ThrowsAsync<HypervisorException>(
            () => test.Instances.CreateReplicasAsync(TestPlatform.Request("counter") with { Name = "it" }, replicas: 3).Guarded());

        Assert.Empty(test.Instances.List());
        Assert.Equal(0, test.Machines);
        await test.Instances.CreateAsync(TestPlatform.Request("counter") with { Name = "it" }).Guarded();
    }

    [Fact]
    public async Task A_wait_for_replicas_ends_when_the_slowest_does_not_run_in_time()
    {
        await using TestPlatform test = SlowToBoot();
        Task<IReadOnlyList<Instance>> creation = test.Instances.CreateReplicasAsync(
            TestPlatform.Request("slow") with { Name = "it", WaitTimeout = TimeSpan.FromSeconds(5) },
            replicas: 1);
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(5)).Guarded();
        await using (ConsoleSession console = new(test.Instances.AttachConsole("it")))
        {
            await console.WriteLineAsync("boot");
            await test.WaitAsync("it", InstanceState.Running);
        }

        test.Time.Advance(TimeSpan.FromSeconds(5));

        await Assert.ThrowsAsync<OperationTimedOutException>(() => creation.Guarded());
        Assert.Equal([InstanceState.Running, InstanceState.Starting], test.Instances.List().Select(instance => instance.State));
    }

    private static TestPlatform SlowToBoot() => new(backend => backend.Guests["slow"] = static () => new SlowBootGuest());
}

using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    private static readonly ScaleToZero Stateful = new(Stateful: true, TimeSpan.FromHours(1));

    [ContractFact]
    public async Task A_suspended_instance_continues_where_it_was()
    {
        Instance instance = await CreateCounterAsync("it");
        CounterTick before = await TickAsync("it");

        Instance suspended = await Instances.SuspendAsync("it").Guarded();

        Assert.Equal((InstanceState.Stopped, true), (suspended.State, suspended.HasSnapshot));
        Assert.Equal(StopReason.User | StopReason.Platform, suspended.StopReason);
        Assert.Equal((null, null), (suspended.ExitCode, suspended.StopCode));
        Assert.Equal(InstanceState.Running, (await Instances.StartAsync("it").Guarded()).State);
        CounterTick after = await TickAsync("it");
        Assert.Equal((before.Nonce, before.Tick + 1), (after.Nonce, after.Tick));
        Assert.Equal((instance.Uuid, 2, false), (Instances.Get("it").Uuid, Instances.Get("it").StartCount, Instances.Get("it").HasSnapshot));

        // What was suspended is used up: the next boot is a fresh one.
        await Instances.StopAsync("it").Guarded();
        await Instances.StartAsync("it").Guarded();
        Assert.Equal(1, (await TickAsync("it")).Tick);
    }

    [ContractFact]
    public async Task An_instance_that_scales_to_zero_is_in_standby_until_a_connection_wakes_it()
    {
        await Instances.CreateAsync(
            Request("counter", "--period-ms", "0") with { Name = "it", ScaleToZero = Stateful, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        CounterTick before = await TickAsync("it");
        Assert.Equal(InstanceState.Standby, (await Instances.SuspendAsync("it").Guarded()).State);
        Instance standby = await Instances.SuspendAsync("it").Guarded();
        Assert.Equal((InstanceState.Standby, StopReason.User | StopReason.Platform, true), (standby.State, standby.StopReason, standby.HasSnapshot));

        using IInstanceConnection connection = await Instances.ConnectAsync("it").Guarded();

        Assert.Equal((InstanceState.Running, 2), (Instances.Get("it").State, Instances.Get("it").StartCount));
        CounterTick after = await TickAsync("it");
        Assert.Equal((before.Nonce, before.Tick + 1), (after.Nonce, after.Tick));
        Assert.False(connection.Closed.IsCompleted);
        await Instances.StopAsync("it", StopRequest.Forced).Guarded();
        await connection.Closed.Guarded();
    }

    [ContractFact]
    public async Task A_source_in_standby_is_branched_and_checkpointed_from_its_snapshot()
    {
        await Instances.CreateAsync(
            Request("counter", "--period-ms", "0") with { Name = "it", ScaleToZero = Stateful, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        CounterTick before = await TickAsync("it");
        await Instances.SuspendAsync("it").Guarded();

        Instance branch = await BranchAsync("it");
        await CheckpointAsync("it", "chk");
        Instance loaded = await LoadAsync("chk");

        Assert.Equal(InstanceState.Standby, Instances.Get("it").State);
        foreach (Guid clone in new[] { branch.Uuid, loaded.Uuid })
        {
            CounterTick tick = await TickAsync(clone);
            Assert.Equal((before.Nonce, before.Tick + 1), (tick.Nonce, tick.Tick));
        }

        // A stop takes it out of standby and leaves it its memory.
        Assert.Equal(InstanceState.Stopped, (await Instances.StopAsync("it").Guarded()).State);
        await Instances.StartAsync("it").Guarded();
        Assert.Equal(before.Tick + 1, (await TickAsync("it")).Tick);
    }

    [ContractFact]
    public async Task What_does_not_run_cannot_be_suspended_nor_connected_to()
    {
        await Instances.CreateAsync(Request("hello") with { Name = "it", Autostart = false }).Guarded();

        await FailsAsync<WrongStateException>("Cannot suspend instance 'it' in state 'stopped'", () => Instances.SuspendAsync("it").Guarded());
        await FailsAsync<WrongStateException>("Cannot connect to instance 'it' in state 'stopped'", () => Instances.ConnectAsync("it").Guarded());
    }

    [ContractFact]
    public async Task Draining_ends_with_the_last_connection()
    {
        await CreateCounterAsync("it");
        IInstanceConnection one = await Instances.ConnectAsync("it").Guarded();
        IInstanceConnection other = await Instances.ConnectAsync("it").Guarded();

        Task<Instance> stop = Instances.StopAsync("it", new StopRequest { DrainTimeout = Timeout.InfiniteTimeSpan });
        Instance draining = await Instances.WaitAsync("it", InstanceState.Draining).Guarded();
        Assert.Equal(StopReason.User | StopReason.Platform, draining.StopReason);
        await FailsAsync<WrongStateException>("Cannot connect to instance 'it' in state 'draining'", () => Instances.ConnectAsync("it").Guarded());
        one.Dispose();
        one.Dispose();
        Assert.Equal(InstanceState.Draining, Instances.Get("it").State);
        other.Dispose();

        Assert.Equal("-UPAK", (await stop.Guarded()).StopReason!.Value.ToMask());
    }

    [ContractFact]
    public async Task Replicas_share_everything_but_their_names_and_uuids()
    {
        IReadOnlyList<Instance> instances = await Instances.CreateReplicasAsync(
            Request("counter", "--period-ms", "0") with { Name = "it", WaitTimeout = Timeout.InfiniteTimeSpan, Tags = ["a"] },
            replicas: 2).Guarded();

        Assert.Equal(3, instances.Count);
        Assert.Equal("it", instances[0].Name);
        Assert.All(instances.Skip(1), replica => AssertGeneratedFrom("it", replica.Name));
        Assert.Equal(3, instances.DistinctBy(instance => instance.Uuid).Count());
        Assert.Equal(3, instances.DistinctBy(instance => instance.Name, StringComparer.Ordinal).Count());
        Assert.All(instances, instance => Assert.Equal(
            (InstanceState.Running, instances[0].Image, 64, "--period-ms", "a"),
            (instance.State, instance.Image, instance.MemoryMb, instance.Args[0], Assert.Single(instance.Tags))));
        Assert.Equal(3, (await Task.WhenAll(instances.Select(instance => TickAsync(instance.Uuid)))).DistinctBy(tick => tick.Nonce, StringComparer.Ordinal).Count());
        Assert.Single(await Instances.CreateReplicasAsync(Request("hello"), replicas: 0).Guarded());

        // Replicas of a branch continue from one snapshot.
        IReadOnlyList<Instance> branches = await Instances.CreateReplicasAsync(
            new CreateInstanceRequest { BranchFrom = "it", WaitTimeout = Timeout.InfiniteTimeSpan },
            replicas: 1).Guarded();
        Assert.All(await Task.WhenAll(branches.Select(branch => TickAsync(branch.Uuid))), tick => Assert.Equal(2, tick.Tick));
    }

    [ContractFact]
    public async Task Instances_with_delete_on_stop_are_gone_when_they_stop()
    {
        CreateInstanceRequest request = Request("counter", "--period-ms", "0") with
        {
            Features = InstanceFeatures.DeleteOnStop,
            WaitTimeout = Timeout.InfiniteTimeSpan,
        };
        await Instances.CreateAsync(request with { Name = "stopped" }).Guarded();
        await Instances.CreateAsync(request with { Name = "locked", DeleteLock = true }).Guarded();

        Instance last = await Instances.StopAsync("stopped").Guarded();
        Assert.Equal((InstanceState.Stopped, InstanceFeatures.DeleteOnStop), (last.State, last.Features));
        Assert.Throws<ResourceNotFoundException>(() => Instances.Get("stopped"));

        await using (IAsyncEnumerator<InstanceTransition> transitions = Instances.WatchAllAsync().GetAsyncEnumerator())
        {
            Instance exits = await Instances.CreateAsync(Request("crash", "exit", "3") with { Features = InstanceFeatures.DeleteOnStop }).Guarded();
            do
            {
                Assert.True(await transitions.MoveNextAsync().AsTask().Guarded());
            }
            while (transitions.Current is not { To: null } gone || gone.Uuid != exits.Uuid);
            Assert.Equal(StopReason.App | StopReason.Kernel, transitions.Current.StopReason);
            Assert.Throws<ResourceNotFoundException>(() => Instances.Get(exits.Uuid));
        }

        await Instances.StopAsync("locked").Guarded();
        Assert.Equal(["locked"], Instances.List().Select(instance => instance.Name));
        await FailsAsync<InvalidRequestException>(
            "Cannot suspend instance 'locked': it has the feature 'delete-on-stop'",
            () => Instances.SuspendAsync("locked").Guarded());
        await FailsAsync<InvalidRequestException>(
            "To use the \"delete-on-stop\" feature, set the `restart_policy` to `never`",
            () => Instances.CreateAsync(request with { RestartPolicy = RestartPolicy.Always }).Guarded());
    }

    [ContractFact]
    public async Task Logs_of_several_instances_are_read_in_one_request_and_survive_a_suspension()
    {
        await CreateCounterAsync("one");
        await CreateCounterAsync("other");
        await using (ConsoleSession console = Attach("one"))
        {
            await console.WriteLineAsync("mark here");
            Assert.Equal("here", await console.ShowAsync());
        }

        string before = Instances.ReadLog("one").Text;
        await Instances.SuspendAsync("one").Guarded();

        IReadOnlyList<InstanceLogOutput> logs = Instances.ReadLogs(
            new InstanceLogRequest("other"),
            new InstanceLogRequest("one", new LogRange(-5, 4)),
            new InstanceLogRequest("one"));

        Assert.Equal(["other", "one", "one"], logs.Select(log => log.Name));
        Assert.Equal([InstanceState.Running, InstanceState.Stopped, InstanceState.Stopped], logs.Select(log => log.State));
        Assert.Equal(before[^5..^1], logs[1].Log.Text);
        Assert.Equal(before, logs[2].Log.Text);
        await Instances.StartAsync("one").Guarded();
        await TickAsync("one");
        Assert.StartsWith(before, Instances.ReadLog("one").Text, StringComparison.Ordinal);
        Assert.Throws<ResourceNotFoundException>(() => Instances.ReadLogs(new InstanceLogRequest("one"), new InstanceLogRequest(Nobody)));
        Assert.Throws<InvalidRequestException>(() => Instances.ReadLogs(new InstanceLogRequest("one", new LogRange(0, -1))));
    }

    [ContractFact]
    public async Task A_suspended_instance_goes_on_with_its_volumes_and_replicas_have_volumes_of_their_own()
    {
        await Volumes.CreateAsync(Blank("data")).Guarded();
        Instance instance = await CreateKvAsync(Existing("data"));
        Assert.Equal("ok 1", await AskKvAsync(instance, "put a before"));
        await Instances.SuspendAsync(instance.Uuid).Guarded();
        await Instances.StartAsync(instance.Uuid).Guarded();

        Assert.Equal("value=before", await AskKvAsync(instance, "get a"));
        Assert.Equal("ok 2", await AskKvAsync(instance, "put a after"));
        await Instances.StopAsync(instance.Uuid).Guarded();
        await Instances.StartAsync(instance.Uuid).Guarded();
        Assert.Equal("value=after", await AskKvAsync(instance, "get a"));
        Assert.StartsWith("check ok", await AskKvAsync(instance, "check"), StringComparison.Ordinal);

        IReadOnlyList<Instance> replicas = await Instances.CreateReplicasAsync(
            new CreateInstanceRequest { BranchFrom = instance.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan },
            replicas: 1).Guarded();
        Assert.Equal(2, replicas.DistinctBy(replica => Assert.Single(replica.Volumes).Uuid).Count());
        foreach (Instance replica in replicas)
        {
            Assert.Equal("value=after", await AskKvAsync(replica, "get a"));
            Assert.StartsWith("ok ", await AskKvAsync(replica, $"put a {replica.Name}"), StringComparison.Ordinal);
        }

        Assert.Equal($"value={replicas[0].Name}", await AskKvAsync(replicas[0], "get a"));
    }
}

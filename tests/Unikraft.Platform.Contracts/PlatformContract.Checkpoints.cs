using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    [ContractFact]
    public async Task A_checkpoint_is_loaded_many_times_also_after_its_source_was_deleted()
    {
        Instance source = await CreateCounterAsync("source");
        await using ConsoleSession console = Attach("source");
        CounterTick first = await console.TickAsync();
        await console.WriteLineAsync("mark at the checkpoint");
        Assert.Equal("at the checkpoint", await console.ShowAsync());
        Checkpoint ready = await CheckpointAsync("source", "chk");
        Assert.Equal(CheckpointState.Ready, ready.State);
        Assert.Equal((source.Uuid, source.Image, 1, 64), (ready.SourceUuid, ready.Image, ready.Vcpus, ready.MemoryMb));
        Assert.NotNull(ready.Pause);
        Assert.Equal(7, ready.Uuid.Version);
        Assert.Equal(ready, Checkpoints.Get(ready.Uuid));
        Assert.Equal([ready], Checkpoints.List());

        // What happens to the source afterwards is not in the checkpoint.
        await console.WriteLineAsync("mark later");
        CounterTick second = await console.TickAsync();
        Assert.Equal((first.Nonce, 2), (second.Nonce, second.Tick));
        for (int i = 0; i < 4; i++)
        {
            if (i == 2)
            {
                await Instances.DeleteAsync("source").Guarded();
            }

            Instance loaded = await LoadAsync("chk");
            Assert.Equal(new InstanceOrigin(InstanceOriginKind.Checkpoint, ready.Uuid, "chk"), loaded.Origin);
            Assert.Equal(source.Args, loaded.Args);
            AssertGeneratedFrom("chk", loaded.Name);
            await using ConsoleSession loadedConsole = Attach(loaded.Uuid);
            Assert.Equal("at the checkpoint", await loadedConsole.ShowAsync());
            await loadedConsole.WriteLineAsync($"mark of load {i}");
            CounterTick tick = await loadedConsole.TickAsync();
            Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick));
            Assert.NotEqual(first.Generation, tick.Generation);
        }

        Assert.Equal(4, Checkpoints.Get("chk").LoadCount);
    }

    [ContractFact]
    public async Task A_history_spans_the_full_lineage_newest_first()
    {
        await CreateCounterAsync("inst1");
        Checkpoint chk1 = await CheckpointAsync("inst1", "chk1");
        await Instances.CreateAsync(new CreateInstanceRequest
        {
            Name = "inst2",
            Checkpoint = "chk1",
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        Checkpoint chk2 = await CheckpointAsync("inst2", "chk2");

        Assert.Equal([chk2.Uuid, chk1.Uuid], Instances.GetHistory("inst2").Select(entry => entry.Uuid));
        Assert.Equal(["chk2", "chk1"], Instances.GetHistory("inst2").Select(entry => entry.Name));
        Assert.Equal([chk2.CreatedAt, chk1.CreatedAt], Instances.GetHistory("inst2").Select(entry => entry.CreatedAt));
        Assert.Equal(["chk1"], Instances.GetHistory("inst1").Select(entry => entry.Name));
        Assert.Equal(["chk1"], Checkpoints.GetHistory("chk2").Select(entry => entry.Name));
        Assert.Empty(Checkpoints.GetHistory("chk1"));

        // Successive checkpoints, a branch, and deletions: nothing of a lineage is forgotten.
        await CheckpointAsync("inst2", "chk3");
        Instance branch = await BranchAsync("inst2");
        await Checkpoints.DeleteAsync("chk1").Guarded();
        await Instances.DeleteAsync("inst2").Guarded();
        Assert.Equal(["chk3", "chk2", "chk1"], Instances.GetHistory(branch.Uuid).Select(entry => entry.Name));
        Assert.Equal(["chk2", "chk1"], Checkpoints.GetHistory("chk3").Select(entry => entry.Name));
        Instance inst3 = await LoadAsync("chk3");
        Assert.Equal(["chk3", "chk2", "chk1"], Instances.GetHistory(inst3.Uuid).Select(entry => entry.Name));
    }

    [ContractFact]
    public async Task A_checkpoint_is_visible_at_once_and_waited_for()
    {
        await CreateCounterAsync("source");

        Checkpoint created = await Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source" }).Guarded();
        AssertGeneratedFrom("source", created.Name);
        Assert.Equal(created.Uuid, Checkpoints.Get(created.Name).Uuid);
        Checkpoint ready = await Checkpoints.WaitAsync(created.Name).Guarded();

        Assert.Equal(CheckpointState.Ready, ready.State);
        Assert.Equal(ready, await Checkpoints.WaitAsync(created.Uuid, TimeSpan.Zero).Guarded());
    }

    [ContractFact]
    public async Task Checkpoint_names_are_unique_and_follow_the_rules()
    {
        await CreateCounterAsync("source");
        await CheckpointAsync("source", "chk");

        NameConflictException error = await FailsAsync<NameConflictException>(
            "A checkpoint with the name 'chk' already exists",
            () => CheckpointAsync("source", "chk"));
        Assert.Equal(PlatformErrorCode.AlreadyExists, error.Code);
        await Assert.ThrowsAsync<InvalidRequestException>(() => CheckpointAsync("source", "no spaces"));
        // Instances have names of their own.
        await CheckpointAsync("source", "source");

        await Checkpoints.DeleteAsync("chk").Guarded();
        await CheckpointAsync("source", "chk");
        Assert.Equal(["source", "chk"], Checkpoints.List().Select(checkpoint => checkpoint.Name));
    }

    [ContractFact]
    public async Task A_deleted_checkpoint_is_gone_but_what_was_loaded_from_it_goes_on()
    {
        await CreateCounterAsync("source");
        CounterTick first = await TickAsync("source");
        Checkpoint checkpoint = await CheckpointAsync("source", "chk");
        Instance loaded = await LoadAsync("chk");
        Instance waiting = await Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "chk", Autostart = false }).Guarded();

        await Checkpoints.DeleteAsync("chk").Guarded();

        await FailsAsync<ResourceNotFoundException>("No checkpoint with name 'chk'", () => LoadAsync("chk"));
        await FailsAsync<ResourceNotFoundException>($"No checkpoint with uuid '{checkpoint.Uuid}'", () => Checkpoints.WaitAsync(checkpoint.Uuid));
        Assert.Throws<ResourceNotFoundException>(() => Checkpoints.Get("chk"));
        Assert.Throws<ResourceNotFoundException>(() => Checkpoints.GetHistory("chk"));
        await Assert.ThrowsAsync<ResourceNotFoundException>(() => Checkpoints.DeleteAsync("chk"));
        await StartAsync(waiting.Uuid);
        foreach (Guid uuid in new[] { loaded.Uuid, waiting.Uuid })
        {
            CounterTick tick = await TickAsync(uuid);
            Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick));
        }
    }

    [ContractFact]
    public async Task A_checkpoint_of_a_stopped_instance_is_of_its_snapshot_or_else_of_its_image()
    {
        Instance source = await CreateCounterAsync();
        CounterTick first = await TickAsync(source.Uuid);
        Instance holder = await Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid, Autostart = false }).Guarded();
        await Instances.StopAsync(source.Uuid).Guarded();

        Checkpoint ofSnapshot = await Checkpoints.CreateAsync(new CreateCheckpointRequest { From = holder.Uuid }).Guarded();
        Checkpoint ofImage = await Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid }).Guarded();
        await Instances.DeleteAsync(holder.Uuid).Guarded();

        Assert.Equal((CheckpointState.Ready, CheckpointState.Ready), (ofSnapshot.State, ofImage.State));
        Assert.Equal((0, 0), (ofSnapshot.StoredBytes, ofImage.StoredBytes));
        Assert.Null(ofSnapshot.Pause);
        CounterTick resumed = await TickAsync((await LoadAsync(ofSnapshot.Uuid)).Uuid);
        CounterTick booted = await TickAsync((await LoadAsync(ofImage.Uuid)).Uuid);
        Assert.Equal((first.Nonce, 2), (resumed.Nonce, resumed.Tick));
        Assert.Equal(1, booted.Tick);
        Assert.NotEqual(first.Nonce, booted.Nonce);
        Assert.Equal([ofImage.Uuid], Instances.GetHistory(source.Uuid).Select(entry => entry.Uuid));
    }

    [ContractFact]
    public async Task Instances_restored_from_one_checkpoint_run_side_by_side()
    {
        await CreateCounterAsync("source");
        CounterTick first = await TickAsync("source");
        await CheckpointAsync("source", "chk");

        Instance[] loaded = await Task.WhenAll(Enumerable.Range(0, 6).Select(_ => LoadAsync("chk")));
        CounterTick[] ticks = await Task.WhenAll(loaded.Select(instance => TickAsync(instance.Uuid)));

        Assert.All(ticks, tick => Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick)));
        Assert.Equal(6, ticks.Select(tick => tick.Generation).Distinct(StringComparer.Ordinal).Count());
    }

    private Task<Checkpoint> CheckpointAsync(NameOrUuid source, string? name = null) => Checkpoints
        .CreateAsync(new CreateCheckpointRequest { From = source, Name = name, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    private Task<Instance> LoadAsync(NameOrUuid checkpoint) => Instances
        .CreateAsync(new CreateInstanceRequest { Checkpoint = checkpoint, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();
}

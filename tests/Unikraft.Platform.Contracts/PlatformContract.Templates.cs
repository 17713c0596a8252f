using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    [ContractTheory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task An_instance_becomes_a_template_and_its_clones_continue_from_there(bool fromInside)
    {
        Instance source = await CreateCounterAsync("base");
        CounterTick first = await TickAsync("base");
        await using (ConsoleSession console = Attach("base"))
        {
            await console.WriteLineAsync("mark of the template");
            Assert.Equal("of the template", await console.ShowAsync());
        }

        Template template = await ConvertAsync("base", fromInside);

        Assert.Equal(
            (source.Uuid, "base", source.CreatedAt, source.Image, source.Vcpus, source.MemoryMb),
            (template.Uuid, template.Name, template.CreatedAt, template.Image, template.Vcpus, template.MemoryMb));
        Assert.Equal((source.Args, source.Env, null, 0), (template.Args, template.Env, template.Origin, template.CloneCount));
        Assert.True(template.ConvertedAt >= template.CreatedAt);
        Assert.Equal(template, Templates.Get("base"));
        Assert.Equal(template, Templates.Get(source.Uuid));
        Assert.Equal([template], Templates.List());
        Assert.Empty(Instances.List());
        Assert.Throws<ResourceNotFoundException>(() => Instances.Get(source.Uuid));

        List<string> generations = [first.Generation];
        for (int i = 0; i < 4; i++)
        {
            Instance clone = await CloneAsync("base");
            Assert.Equal(new InstanceOrigin(InstanceOriginKind.Template, source.Uuid, "base"), clone.Origin);
            Assert.Equal(source.Args, clone.Args);
            AssertGeneratedFrom("base", clone.Name);
            await using ConsoleSession console = Attach(clone.Uuid, fromStart: true);
            if (fromInside)
            {
                // The call has returned, and nothing was written before.
                generations.Add((await console.ReadLineAsync())!["cloned gen=".Length..]);
            }

            Assert.Equal("of the template", await console.ShowAsync());
            await console.WriteLineAsync($"mark of clone {i}");
            CounterTick tick = await console.TickAsync();
            Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick));
            generations.Add(tick.Generation);
        }

        Assert.Equal(5, generations.Distinct(StringComparer.Ordinal).Count());
        Assert.Equal(4, Templates.Get("base").CloneCount);
    }

    [ContractTheory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Templates_nest_and_survive_their_clones_and_the_other_way_round(bool fromInside)
    {
        Instance instance = await CreateCounterAsync("level-0");
        CounterTick first = await TickAsync("level-0");
        for (int depth = 1; depth <= 5; depth++)
        {
            string parent = $"level-{depth - 1}";
            Template template = await ConvertAsync(parent, fromInside);
            Assert.Equal(depth == 1 ? null : $"level-{depth - 2}", template.Origin?.Name);
            instance = await CloneAsync(parent, $"level-{depth}");
            CounterTick tick = await TickAsync(instance.Uuid);
            Assert.Equal((first.Nonce, depth + 1), (tick.Nonce, tick.Tick));
        }

        // From the middle down and from the top: who descends from it does not notice.
        await Templates.DeleteAsync("level-2").Guarded();
        await Templates.DeleteAsync("level-0").Guarded();
        await Instances.DeleteAsync(instance.Uuid).Guarded();
        Assert.Equal(["level-1", "level-3", "level-4"], Templates.List().Select(template => template.Name));
        Assert.Equal((first.Nonce, 3), await NextTickAsync("level-1"));
        Assert.Equal((first.Nonce, 5), await NextTickAsync("level-3"));
        Assert.Equal((first.Nonce, 6), await NextTickAsync("level-4"));
        Assert.Equal((first.Nonce, 6), await NextTickAsync("level-4"));

        async Task<(string Nonce, int Tick)> NextTickAsync(string template)
        {
            CounterTick tick = await TickAsync((await CloneAsync(template)).Uuid);
            return (tick.Nonce, tick.Tick);
        }
    }

    [ContractFact]
    public async Task A_template_is_no_instance()
    {
        Instance source = await CreateCounterAsync("base");
        await using ConsoleSession console = Attach("base");
        Task<Instance> stopped = Instances.WaitAsync("base", InstanceState.Stopped);
        await ConvertAsync("base", fromInside: false);

        await Assert.ThrowsAsync<ResourceNotFoundException>(() => stopped.Guarded());
        Assert.Null(await console.ReadLineAsync());
        const string Message = "No instance with name 'base'";
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.StartAsync("base").Guarded());
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.StopAsync("base").Guarded());
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.DeleteAsync("base").Guarded());
        await FailsAsync<ResourceNotFoundException>(Message, () => BranchAsync("base"));
        await FailsAsync<ResourceNotFoundException>(Message, () => CheckpointAsync("base"));
        await FailsAsync<ResourceNotFoundException>(Message, () => Templates.ConvertAsync("base").Guarded());
        await FailsAsync<ResourceNotFoundException>($"No instance with uuid '{source.Uuid}'", () => BranchAsync(source.Uuid));
        Assert.Equal("base", Assert.Single(Templates.List()).Name);
    }

    [ContractFact]
    public async Task The_name_of_a_template_is_free_again_when_it_is_deleted()
    {
        await CreateCounterAsync("base");
        Template template = await ConvertAsync("base", fromInside: false);
        Instance clone = await Instances.CreateAsync(new CreateInstanceRequest { Template = "base", Autostart = false }).Guarded();
        await FailsAsync<NameConflictException>("A template with the name 'base' already exists", () => CreateCounterAsync("base"));

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Templates.DeleteAsync("base", Cancelled));
        await Templates.DeleteAsync("base").Guarded();

        await FailsAsync<ResourceNotFoundException>("No template with name 'base'", () => Templates.DeleteAsync("base"));
        await FailsAsync<ResourceNotFoundException>("No template with name 'base'", () => CloneAsync("base"));
        Assert.Throws<ResourceNotFoundException>(() => Templates.Get(template.Uuid));
        Assert.Empty(Templates.List());
        await CreateCounterAsync("base");
        await StartAsync(clone.Uuid);
        Assert.Equal(1, (await TickAsync(clone.Uuid)).Tick);
        await ConvertAsync("base", fromInside: false);
    }

    [ContractFact]
    public async Task A_stopped_instance_becomes_a_template_of_its_snapshot_or_else_of_its_image()
    {
        await CreateCounterAsync("source");
        CounterTick first = await TickAsync("source");
        await Instances.CreateAsync(new CreateInstanceRequest { Name = "holder", BranchFrom = "source", Autostart = false }).Guarded();
        await Instances.StopAsync("source").Guarded();

        Template ofSnapshot = await Templates.ConvertAsync("holder").Guarded();
        Template ofImage = await Templates.ConvertAsync("source").Guarded();

        Assert.Equal((0, 0), (ofSnapshot.StoredBytes, ofImage.StoredBytes));
        Assert.Equal(InstanceOriginKind.Branch, ofSnapshot.Origin?.Kind);
        CounterTick resumed = await TickAsync((await CloneAsync("holder")).Uuid);
        CounterTick booted = await TickAsync((await CloneAsync("source")).Uuid);
        Assert.Equal((first.Nonce, 2), (resumed.Nonce, resumed.Tick));
        Assert.Equal(1, booted.Tick);
        Assert.NotEqual(first.Nonce, booted.Nonce);
    }

    [ContractFact]
    public async Task The_history_of_checkpoints_goes_through_templates()
    {
        await CreateCounterAsync("base");
        await CheckpointAsync("base", "chk1");
        await ConvertAsync("base", fromInside: false);
        Instance clone = await CloneAsync("base");
        await CheckpointAsync(clone.Uuid, "chk2");

        Assert.Equal(["chk2", "chk1"], Instances.GetHistory(clone.Uuid).Select(entry => entry.Name));
        Assert.Equal(["chk1"], Checkpoints.GetHistory("chk2").Select(entry => entry.Name));
    }

    [ContractFact]
    public async Task What_a_clone_of_a_template_inherits_cannot_be_set()
    {
        await CreateCounterAsync("base");
        await CreateCounterAsync("source");
        await CheckpointAsync("source", "chk");
        await ConvertAsync("base", fromInside: false);
        CreateInstanceRequest clone = new() { Template = "base" };
        Dictionary<string, string> env = new(StringComparer.Ordinal);
        (CreateInstanceRequest Request, string Field)[] refused =
        [
            (clone with { BranchFrom = "source" }, "branch_from"),
            (clone with { Checkpoint = "chk" }, "checkpoint"),
            (clone with { Image = Image("hello") }, "image"),
            (clone with { Args = [] }, "args"),
            (clone with { Env = env }, "env"),
            (clone with { MemoryMb = 64 }, "memory_mb"),
            (clone with { Vcpus = 1 }, "vcpus"),
        ];

        foreach ((CreateInstanceRequest request, string field) in refused)
        {
            await FailsAsync<InvalidRequestException>(
                $"Cannot specify '{field}' when creating an instance from a template",
                () => Instances.CreateAsync(request).Guarded());
        }

        Assert.Single(Instances.List());
        Assert.Equal(0, Templates.Get("base").CloneCount);
    }

    [ContractFact]
    public async Task A_conversion_that_is_cancelled_changes_nothing()
    {
        await CreateCounterAsync("base");
        CounterTick first = await TickAsync("base");

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Templates.ConvertAsync("base", Cancelled).Guarded());

        Assert.Empty(Templates.List());
        Assert.Equal(first with { Tick = 2 }, await TickAsync("base"));
    }

    [ContractFact]
    public async Task Of_conversions_and_deletions_at_the_same_time_one_succeeds()
    {
        for (int i = 0; i < 5; i++)
        {
            string name = $"base-{i}";
            await CreateCounterAsync(name);
            Task<bool>[] conversions = [.. Enumerable.Range(0, 3).Select(_ => SucceedsAsync(() => Templates.ConvertAsync(name)))];
            Task<bool> deletion = SucceedsAsync(() => Instances.DeleteAsync(name));

            int converted = (await Task.WhenAll(conversions).Guarded()).Count(done => done);

            Assert.Equal(await deletion.Guarded() ? 0 : 1, converted);
            Assert.Equal(converted, Templates.List().Count(template => string.Equals(template.Name, name, StringComparison.Ordinal)));
        }

        Assert.Empty(Instances.List());

        static async Task<bool> SucceedsAsync(Func<Task> action)
        {
            await Task.Yield();
            try
            {
                await action();
                return true;
            }
            catch (PlatformException error) when (error.Code is PlatformErrorCode.NotFound or PlatformErrorCode.SnapshotPending or PlatformErrorCode.WrongState)
            {
                return false;
            }
        }
    }

    [ContractFact]
    public async Task A_clone_becomes_a_template_as_soon_as_it_runs()
    {
        await CreateCounterAsync("base");
        CounterTick first = await TickAsync("base");
        Task<Instance> gone = Instances.WaitAsync("base", InstanceState.Standby);
        await using (ConsoleSession console = Attach("base"))
        {
            // The second line is in the template, so that each of its clones reads it first.
            await console.WriteLineAsync("template\ntemplate");
            await Assert.ThrowsAsync<ResourceNotFoundException>(() => gone.Guarded());
        }

        for (int i = 0; i < 3; i++)
        {
            Instance clone = await CloneAsync("base");
            Exception? left = await Record.ExceptionAsync(() => Instances.WaitAsync(clone.Uuid, InstanceState.Standby).Guarded());
            Assert.IsType<ResourceNotFoundException>(left);
            Assert.Equal("base", Templates.Get(clone.Uuid).Origin?.Name);
            CounterTick tick = await TickAsync((await CloneAsync(clone.Uuid)).Uuid);
            Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick));
        }

        Assert.Equal(4, Templates.List().Count);
    }

    /// <summary>Turns a running counter into a template.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="fromInside">Whether its guest asks for it.</param>
    private async Task<Template> ConvertAsync(NameOrUuid instance, bool fromInside)
    {
        if (!fromInside)
        {
            return await Templates.ConvertAsync(instance).Guarded();
        }

        Task<Instance> gone = Instances.WaitAsync(instance, InstanceState.Standby);
        await using ConsoleSession console = Attach(instance);
        await console.WriteLineAsync("template");
        await Assert.ThrowsAsync<ResourceNotFoundException>(() => gone.Guarded());
        return Templates.Get(instance);
    }

    private Task<Instance> CloneAsync(NameOrUuid template, string? name = null) => Instances
        .CreateAsync(new CreateInstanceRequest { Name = name, Template = template, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();
}

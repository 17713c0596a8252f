using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    [ContractFact]
    public async Task A_branch_continues_from_the_state_of_a_running_source_which_goes_on()
    {
        Instance source = await CreateCounterAsync("source");
        await using ConsoleSession sourceConsole = Attach("source");
        CounterTick first = await sourceConsole.TickAsync();
        await sourceConsole.WriteLineAsync("mark shared");
        Assert.Equal("shared", await sourceConsole.ShowAsync());

        Instance branch = await Instances.CreateAsync(new CreateInstanceRequest
        {
            Name = "branch",
            BranchFrom = "source",
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();

        Assert.Equal(new InstanceOrigin(InstanceOriginKind.Branch, source.Uuid, "source"), branch.Origin);
        Assert.Equal(
            (source.Image, source.Vcpus, source.MemoryMb, string.Join(' ', source.Args)),
            (branch.Image, branch.Vcpus, branch.MemoryMb, string.Join(' ', branch.Args)));
        Assert.NotNull(branch.BootTime);
        Assert.Equal(InstanceState.Running, Instances.Get("source").State);
        await using ConsoleSession branchConsole = Attach("branch");
        CounterTick branched = await branchConsole.TickAsync();
        CounterTick second = await sourceConsole.TickAsync();
        Assert.Equal((first.Nonce, 2), (branched.Nonce, branched.Tick));
        Assert.NotEqual(first.Generation, branched.Generation);
        Assert.Equal(first with { Tick = 2 }, second);

        await branchConsole.WriteLineAsync("mark of the branch");
        await sourceConsole.WriteLineAsync("mark of the source");
        Assert.Equal("of the branch", await branchConsole.ShowAsync());
        Assert.Equal("of the source", await sourceConsole.ShowAsync());

        // Their logs are their own as well.
        Assert.DoesNotContain("of the source", Instances.ReadLog("branch").Text, StringComparison.Ordinal);
        Assert.DoesNotContain("of the branch", Instances.ReadLog("source").Text, StringComparison.Ordinal);
    }

    [ContractFact]
    public async Task Branches_branch_and_outlive_their_source()
    {
        Instance instance = await CreateCounterAsync();
        CounterTick first = await TickAsync(instance.Uuid);
        for (int generation = 2; generation <= 4; generation++)
        {
            Instance branch = await BranchAsync(instance.Uuid);
            await Instances.DeleteAsync(instance.Uuid).Guarded();
            CounterTick tick = await TickAsync(branch.Uuid);
            Assert.Equal((first.Nonce, generation), (tick.Nonce, tick.Tick));
            instance = branch;
        }
    }

    [ContractFact]
    public async Task Environment_and_size_are_inherited_and_the_restart_policy_is_never_unless_given()
    {
        Dictionary<string, string> env = new(StringComparer.Ordinal) { ["A"] = "b", ["C"] = "" };
        CreateInstanceRequest request = Request("counter", "--period-ms", "0") with
        {
            Name = "source",
            Env = env,
            MemoryMb = 65,
            RestartPolicy = RestartPolicy.Always,
            WaitTimeout = Timeout.InfiniteTimeSpan,
        };
        await Instances.CreateAsync(request).Guarded();
        await CheckpointAsync("source", "chk");

        foreach (Instance made in new[] { await BranchAsync("source"), await LoadAsync("chk") })
        {
            Assert.Equal(env, made.Env);
            Assert.Equal((1, 65, RestartPolicy.Never), (made.Vcpus, made.MemoryMb, made.RestartPolicy));
        }
    }

    [ContractFact]
    public async Task A_branch_without_a_name_is_called_after_its_source()
    {
        await CreateCounterAsync("mother");

        AssertGeneratedFrom("mother", (await BranchAsync("mother")).Name);
    }

    [ContractFact]
    public async Task A_branch_of_a_stopped_source_boots_its_image_with_its_configuration()
    {
        Instance source = await CreateCounterAsync();
        CounterTick first = await TickAsync(source.Uuid);
        await Instances.StopAsync(source.Uuid).Guarded();

        Instance branch = await BranchAsync(source.Uuid);
        CounterTick tick = await TickAsync(branch.Uuid);

        Assert.Equal(1, tick.Tick);
        Assert.NotEqual(first.Nonce, tick.Nonce);
        Assert.Equal(source.Args, branch.Args);
        Assert.Equal(InstanceState.Stopped, Instances.Get(source.Uuid).State);
    }

    [ContractFact]
    public async Task A_branch_that_is_not_started_resumes_once_and_boots_afterwards()
    {
        Instance source = await CreateCounterAsync();
        CounterTick first = await TickAsync(source.Uuid);
        Instance branch = await Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid, Autostart = false }).Guarded();
        Assert.Equal(InstanceState.Stopped, branch.State);
        await Instances.DeleteAsync(source.Uuid).Guarded();

        // A stopped instance with a snapshot is branched from that.
        Instance grandchild = await BranchAsync(branch.Uuid);
        await StartAsync(branch.Uuid);
        CounterTick resumed = await TickAsync(branch.Uuid);
        CounterTick cousin = await TickAsync(grandchild.Uuid);
        await Instances.StopAsync(branch.Uuid).Guarded();
        await StartAsync(branch.Uuid);
        CounterTick booted = await TickAsync(branch.Uuid);

        Assert.Equal((first.Nonce, 2), (resumed.Nonce, resumed.Tick));
        Assert.Equal((first.Nonce, 2), (cousin.Nonce, cousin.Tick));
        Assert.Equal(1, booted.Tick);
        Assert.NotEqual(first.Nonce, booted.Nonce);
    }

    [ContractFact]
    public async Task A_deleted_source_cannot_be_branched()
    {
        Instance source = await CreateCounterAsync("gone");
        await Instances.DeleteAsync("gone").Guarded();

        await FailsAsync<ResourceNotFoundException>("No instance with name 'gone'", () => BranchAsync("gone"));
        await FailsAsync<ResourceNotFoundException>($"No instance with uuid '{source.Uuid}'", () => BranchAsync(source.Uuid));
    }

    [ContractFact]
    public async Task Two_sources_of_creation_are_refused()
    {
        await CreateCounterAsync("source");
        await Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        CreateInstanceRequest branch = new() { BranchFrom = "source" };
        CreateInstanceRequest load = new() { Checkpoint = "chk" };
        Dictionary<string, string> env = new(StringComparer.Ordinal);
        (CreateInstanceRequest Request, string Message)[] refused =
        [
            (new CreateInstanceRequest(), "Specify exactly one of 'image', 'branch_from', 'checkpoint' and 'template'"),
            (branch with { Image = Image("hello") }, "Cannot specify 'image' when 'branch_from' is set"),
            (branch with { Checkpoint = "chk" }, "Cannot specify 'checkpoint' when 'branch_from' is set"),
            (branch with { Args = [] }, "Cannot specify 'args' when branching from an existing instance"),
            (branch with { Env = env }, "Cannot specify 'env' when branching from an existing instance"),
            (branch with { MemoryMb = 64 }, "Cannot specify 'memory_mb' when branching from an existing instance"),
            (branch with { Vcpus = 1 }, "Cannot specify 'vcpus' when branching from an existing instance"),
            (load with { Image = Image("hello") }, "Cannot specify 'image' when 'checkpoint' is set"),
            (load with { Args = [] }, "Cannot specify 'args' when creating an instance from a checkpoint"),
            (load with { Env = env }, "Cannot specify 'env' when creating an instance from a checkpoint"),
            (load with { MemoryMb = 64 }, "Cannot specify 'memory_mb' when creating an instance from a checkpoint"),
            (load with { Vcpus = 1 }, "Cannot specify 'vcpus' when creating an instance from a checkpoint"),
        ];

        foreach ((CreateInstanceRequest request, string message) in refused)
        {
            await FailsAsync<InvalidRequestException>(message, () => Instances.CreateAsync(request).Guarded());
        }

        Assert.Single(Instances.List());
        Assert.Equal(0, Checkpoints.Get("chk").LoadCount);
    }

    [ContractFact]
    public async Task Every_combination_of_sources_has_its_error()
    {
        const string ByTemplate = "Cannot specify '{0}' when creating an instance from a template";
        for (int sources = 0; sources < 16; sources++)
        {
            bool image = (sources & 1) != 0, branch = (sources & 2) != 0, checkpoint = (sources & 4) != 0, template = (sources & 8) != 0;
            CreateInstanceRequest request = new()
            {
                Image = image ? Image("hello") : null,
                BranchFrom = branch ? Nobody : (NameOrUuid?)null,
                Checkpoint = checkpoint ? Nobody : (NameOrUuid?)null,
                Template = template ? Nobody : (NameOrUuid?)null,
            };
            string? message = (image, branch, checkpoint, template) switch
            {
                (false, false, false, false) => "Specify exactly one of 'image', 'branch_from', 'checkpoint' and 'template'",
                (_, true, _, true) => ByTemplate.Replace("{0}", "branch_from", StringComparison.Ordinal),
                (_, _, true, true) => ByTemplate.Replace("{0}", "checkpoint", StringComparison.Ordinal),
                (true, _, _, true) => ByTemplate.Replace("{0}", "image", StringComparison.Ordinal),
                (true, true, _, _) => "Cannot specify 'image' when 'branch_from' is set",
                (_, true, true, _) => "Cannot specify 'checkpoint' when 'branch_from' is set",
                (true, _, true, _) => "Cannot specify 'image' when 'checkpoint' is set",
                _ => null,
            };
            if (message is not null)
            {
                await FailsAsync<InvalidRequestException>(message, () => Instances.CreateAsync(request).Guarded());
            }
        }

        Assert.Empty(Instances.List());
    }

    [ContractFact]
    public async Task Branching_and_ticking_at_the_same_time_loses_no_tick_on_either_side()
    {
        Instance source = await CreateCounterAsync();
        await using ConsoleSession console = Attach(source.Uuid);
        List<(Guid Uuid, int AtLeast, int AtMost)> branches = [];
        for (int i = 0; i < 5; i++)
        {
            int before = (await console.TickAsync()).Tick;
            Task<Instance> branching = BranchAsync(source.Uuid);
            int during = (await console.TickAsync()).Tick;
            branches.Add(((await branching).Uuid, before, during));
        }

        foreach ((Guid uuid, int atLeast, int atMost) in branches)
        {
            // The tick that was on its way while the snapshot was taken may have come before or after it.
            await using ConsoleSession branch = Attach(uuid);
            Assert.InRange((await branch.TickAsync()).Tick, atLeast + 1, atMost + 2);
        }

        Assert.Equal(11, (await console.TickAsync()).Tick);
    }

    private Task<Instance> BranchAsync(NameOrUuid source) => Instances
        .CreateAsync(new CreateInstanceRequest { BranchFrom = source, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    private async Task StartAsync(NameOrUuid instance)
    {
        await Instances.StartAsync(instance).Guarded();
        await Instances.WaitAsync(instance, InstanceState.Running).Guarded();
    }
}

using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    private static readonly NameOrUuid Nobody = "nobody";

    [ContractTheory]
    [InlineData("")]
    [InlineData("-begins")]
    [InlineData("ends-")]
    [InlineData("has space")]
    [InlineData("under_score")]
    [InlineData("dot.ted")]
    [InlineData("ümlaut")]
    [InlineData("new\nline")]
    [InlineData("x234567890123456789012345678901234567890123456789012345678901234")]
    [InlineData("0f8fad5b-d9cb-469f-a165-70867728950e")]
    public async Task A_name_that_breaks_the_rules_is_refused(string name)
    {
        await Assert.ThrowsAsync<InvalidRequestException>(() => Instances.CreateAsync(Request("hello") with { Name = name }).Guarded());

        Assert.Empty(Instances.List());
    }

    [ContractFact]
    public async Task A_name_is_given_once()
    {
        await CreateCounterAsync("one");

        NameConflictException error = await FailsAsync<NameConflictException>(
            "An instance with the name 'one' already exists",
            () => CreateCounterAsync("one"));

        Assert.Equal("one", error.Name);
        Assert.Single(Instances.List());
    }

    [ContractFact]
    public async Task Requests_out_of_range_are_refused_and_leave_nothing()
    {
        HypervisorInfo info = Platform.Hypervisor;
        CreateInstanceRequest hello = Request("hello") with { Name = "free" };
        CreateInstanceRequest[] refused =
        [
            hello with { MemoryMb = info.MinMemoryMb - 1 },
            hello with { MemoryMb = info.MaxMemoryMb + 1 },
            hello with { Vcpus = 0 },
            hello with { Vcpus = info.MaxVcpus + 1 },
            hello with { Args = ["a\0b"] },
            hello with { Args = [null!] },
            hello with { Env = new Dictionary<string, string>(StringComparer.Ordinal) { ["A=B"] = "c" } },
            hello with { Env = new Dictionary<string, string>(StringComparer.Ordinal) { [""] = "c" } },
            hello with { Env = new Dictionary<string, string>(StringComparer.Ordinal) { ["A"] = "\0" } },
            hello with { RestartPolicy = (RestartPolicy)9 },
            hello with { WaitTimeout = TimeSpan.FromSeconds(-2) },
            hello with { WaitTimeout = TimeSpan.FromSeconds(1), Autostart = false },
            hello with { Args = [new string('x', 45 << 10)] },
            hello with { Snapshot = new SnapshotOptions() },
            hello with { Features = (InstanceFeatures)2 },
            hello with { ScaleToZero = new ScaleToZero(Stateful: true, TimeSpan.FromSeconds(-1)) },
            hello with { ScaleToZero = new ScaleToZero(Stateful: true, TimeSpan.FromHours(25)) },
            hello with { ScaleToZero = new ScaleToZero(Stateful: true, default), Features = InstanceFeatures.DeleteOnStop },
            hello with { WaitTimeoutMs = -2 },
            hello with { WaitTimeoutMs = 1, Autostart = false },
        ];

        foreach (CreateInstanceRequest request in refused)
        {
            await Assert.ThrowsAsync<InvalidRequestException>(() => Instances.CreateAsync(request).Guarded());
        }

        foreach (int replicas in new[] { -1, 254 })
        {
            await Assert.ThrowsAsync<InvalidRequestException>(() => Instances.CreateReplicasAsync(hello, replicas).Guarded());
        }

        Assert.Empty(Instances.List());
        await Instances.CreateAsync(hello).Guarded();
    }

    [ContractFact]
    public async Task An_image_that_cannot_be_used_leaves_nothing()
    {
        CreateInstanceRequest[] refused =
        [
            Request("hello") with { Name = "free", Image = GuestImage.FromBytes("garbage", new byte[4096]) },
            Request("hello") with { Name = "free", Image = GuestImage.FromFile("/nonexistent/garbage.elf") },
        ];
        foreach (CreateInstanceRequest request in refused)
        {
            await Assert.ThrowsAsync<ImageException>(() => Instances.CreateAsync(request).Guarded());
        }

        Assert.Empty(Instances.List());
        await Instances.CreateAsync(Request("hello") with { Name = "free" }).Guarded();
    }

    [ContractFact]
    public async Task An_image_error_of_a_later_start_leaves_the_instance_stopped()
    {
        Instance instance = await Instances.CreateAsync(new CreateInstanceRequest
        {
            Image = GuestImage.FromBytes("garbage", new byte[4096]),
            Autostart = false,
        }).Guarded();

        await Assert.ThrowsAsync<ImageException>(() => Instances.StartAsync(instance.Uuid).Guarded());

        Assert.Equal(instance, Instances.Get(instance.Uuid));
    }

    [ContractFact]
    public async Task Nobody_is_not_found()
    {
        const string Message = "No instance with name 'nobody'";
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.StartAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.StopAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.WaitAsync(Nobody, InstanceState.Running));
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.DeleteAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.SuspendAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.ConnectAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>(Message, () => BranchAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>(Message, () => CheckpointAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>("No checkpoint with name 'nobody'", () => LoadAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>("No checkpoint with name 'nobody'", () => Checkpoints.WaitAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>("No checkpoint with name 'nobody'", () => Checkpoints.DeleteAsync(Nobody));
        await FailsAsync<ResourceNotFoundException>(Message, () => Instances.PatchAsync(Nobody, []));
        await FailsAsync<ResourceNotFoundException>("No checkpoint with name 'nobody'", () => Checkpoints.PatchAsync(Nobody, []));
        await FailsAsync<ResourceNotFoundException>("No template with name 'nobody'", () => Templates.PatchAsync(Nobody, []));
        Assert.Throws<ResourceNotFoundException>(() => Instances.WatchAsync(Nobody));
        Assert.Throws<ResourceNotFoundException>(() => Instances.Get(Nobody));
        Assert.Throws<ResourceNotFoundException>(() => Instances.GetHistory(Nobody));
        Assert.Throws<ResourceNotFoundException>(() => Instances.ReadLog(Nobody));
        Assert.Throws<ResourceNotFoundException>(() => Instances.AttachConsole(Nobody));
        Assert.Throws<ResourceNotFoundException>(() => Checkpoints.Get(Nobody));
        Assert.Throws<ResourceNotFoundException>(() => Checkpoints.GetHistory(Nobody));
        Assert.Throws<ResourceNotFoundException>(() => Instances.Get(Guid.Empty));
        Assert.Throws<ResourceNotFoundException>(() => Instances.Get(default));
    }

    [ContractFact]
    public async Task Stops_and_waits_out_of_range_are_refused()
    {
        Instance instance = await CreateCounterAsync();

        await Assert.ThrowsAsync<InvalidRequestException>(
            () => Instances.StopAsync(instance.Uuid, new StopRequest { Force = true, GracePeriod = TimeSpan.FromSeconds(1) }));
        await Assert.ThrowsAsync<InvalidRequestException>(
            () => Instances.StopAsync(instance.Uuid, new StopRequest { GracePeriod = TimeSpan.FromSeconds(-2) }));
        await FailsAsync<InvalidRequestException>(
            "Cannot combine 'drain_timeout_ms' with 'force'",
            () => Instances.StopAsync(instance.Uuid, new StopRequest { Force = true, DrainTimeout = TimeSpan.Zero }));
        foreach (TimeSpan drain in new[] { TimeSpan.FromSeconds(-2), TimeSpan.FromHours(1) + TimeSpan.FromTicks(1) })
        {
            await Assert.ThrowsAsync<InvalidRequestException>(() => Instances.StopAsync(instance.Uuid, new StopRequest { DrainTimeout = drain }));
        }

        await Assert.ThrowsAsync<InvalidRequestException>(
            () => Instances.WaitAsync(instance.Uuid, InstanceState.Stopped, TimeSpan.FromDays(60)));
        await Assert.ThrowsAsync<InvalidRequestException>(() => Instances.WaitAsync(instance.Uuid, (InstanceState)77));

        Assert.Equal(InstanceState.Running, Instances.Get(instance.Uuid).State);
    }

    [ContractFact]
    public async Task A_cancelled_token_leaves_everything_as_it_was()
    {
        Instance running = await CreateCounterAsync("running");
        await CheckpointAsync("running", "chk");
        Instance stopped = await Instances.CreateAsync(Request("hello") with { Name = "stopped", Autostart = false }).Guarded();
        CreateInstanceRequest[] requests =
        [
            Request("hello") with { Name = "free" },
            Request("hello") with { Name = "free", Autostart = false },
            new CreateInstanceRequest { Name = "free", BranchFrom = "running" },
            new CreateInstanceRequest { Name = "free", Checkpoint = "chk" },
        ];
        foreach (CreateInstanceRequest request in requests)
        {
            await AssertCancelledAsync(() => Instances.CreateAsync(request, Cancelled));
        }

        await AssertCancelledAsync(() => Instances.StartAsync("stopped", Cancelled));
        await AssertCancelledAsync(() => Instances.StopAsync("running", cancellationToken: Cancelled));
        await AssertCancelledAsync(() => Instances.WaitAsync("running", InstanceState.Stopped, cancellationToken: Cancelled));
        await AssertCancelledAsync(() => Instances.SuspendAsync("running", Cancelled));
        await AssertCancelledAsync(() => Instances.ConnectAsync("running", Cancelled));
        await AssertCancelledAsync(() => Instances.CreateReplicasAsync(requests[0], replicas: 2, Cancelled));
        await AssertCancelledAsync(() => Instances.DeleteAsync("running", Cancelled));
        await AssertCancelledAsync(
            () => Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "running", Name = "free" }, Cancelled));
        await AssertCancelledAsync(() => Checkpoints.WaitAsync("chk", cancellationToken: Cancelled));
        await AssertCancelledAsync(() => Checkpoints.DeleteAsync("chk", Cancelled));
        await AssertCancelledAsync(() => Instances.PatchAsync("stopped", [new PatchOperation.SetDeleteLock(true)], Cancelled));
        await AssertCancelledAsync(() => Checkpoints.PatchAsync("chk", [new PatchOperation.SetDeleteLock(true)], Cancelled));

        Assert.Equal(["running", "stopped"], Instances.List().Select(instance => instance.Name));
        Assert.Equal(["chk"], Checkpoints.List().Select(checkpoint => checkpoint.Name));
        Assert.Equal(stopped, Instances.Get("stopped"));
        Assert.Equal(running.StartedAt, Instances.Get("running").StartedAt);
        Assert.Equal(1, (await TickAsync("running")).Tick);
        await BranchAsync("running");
        await Instances.CreateAsync(requests[0]).Guarded();
    }

    [ContractFact]
    public async Task Missing_arguments_are_refused()
    {
        await Assert.ThrowsAsync<ArgumentNullException>(() => Instances.CreateAsync(null!));
        await Assert.ThrowsAsync<ArgumentNullException>(() => Checkpoints.CreateAsync(null!));
        await Assert.ThrowsAsync<ArgumentNullException>(() => Instances.PatchAsync("it", null!));
        await Assert.ThrowsAsync<ArgumentNullException>(() => Checkpoints.PatchAsync("it", null!));
        await Assert.ThrowsAsync<ArgumentNullException>(() => Templates.PatchAsync("it", null!));
    }

    private static async Task AssertCancelledAsync(Func<Task> action) =>
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => action().Guarded());
}

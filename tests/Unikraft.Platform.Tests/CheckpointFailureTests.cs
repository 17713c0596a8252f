using Unikraft.Platform.Contracts;

namespace Unikraft.Platform.Tests;

public sealed class CheckpointFailureTests
{
    private static readonly TimeSpan Latency = TimeSpan.FromSeconds(3);

    [Fact]
    public async Task A_checkpoint_is_starting_until_it_is_captured_and_cannot_be_loaded_before()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        await CreateSourceAsync(test);

        Checkpoint created = await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk" }).Guarded();
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Assert.Equal(CheckpointState.Starting, created.State);
        Assert.Null(created.Pause);
        Assert.Equal(created, test.Checkpoints.Get("chk"));
        Assert.Empty(test.Instances.GetHistory("source"));
        PlatformException load = await Assert.ThrowsAsync<PlatformException>(
            () => test.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "chk", Name = "free" }).Guarded());
        Assert.Equal(
            ("Failed to create instance from checkpoint: checkpoint 'chk' is in state 'starting', wait until it is ready", PlatformErrorCode.WrongState),
            (load.Message, load.Code));

        Task<Checkpoint> wait = test.Checkpoints.WaitAsync("chk", TimeSpan.FromSeconds(60));
        test.Time.Advance(Latency);
        Assert.Equal(CheckpointState.Ready, (await wait.Guarded()).State);
        Assert.Single(test.Instances.GetHistory("source"));
        await test.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "chk", Name = "free" }).Guarded();
    }

    [Fact]
    public async Task A_capture_that_fails_removes_the_checkpoint_and_is_reported()
    {
        HypervisorException refusal = new("disk full");
        await using TestPlatform test = new(options =>
        {
            options.CaptureLatency = Latency;
            options.CaptureFailure = _ => refusal;
        });
        await CreateSourceAsync(test);
        await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk" }).Guarded();
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Task<Checkpoint> wait = test.Checkpoints.WaitAsync("chk");
        test.Time.Advance(Latency);

        PlatformException error = await Assert.ThrowsAsync<PlatformException>(() => wait.Guarded());

        Assert.Equal(("Failed to allocate checkpoint: disk full", PlatformErrorCode.HypervisorFailed), (error.Message, error.Code));
        Assert.Same(refusal, error.InnerException);
        Assert.Empty(test.Checkpoints.List());
        Assert.Empty(test.Instances.GetHistory("source"));
        Assert.Equal(InstanceState.Running, test.Instances.Get("source").State);
    }

    [Fact]
    public async Task Cancelling_removes_the_checkpoint_and_the_source_goes_on()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        await CreateSourceAsync(test);
        using CancellationTokenSource cancellation = new();
        CreateCheckpointRequest request = new() { From = "source", Name = "chk", WaitTimeout = TimeSpan.FromSeconds(60) };
        Task<Checkpoint> creation = test.Checkpoints.CreateAsync(request, cancellation.Token);
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Task<Checkpoint> wait = test.Checkpoints.WaitAsync("chk");

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => creation.Guarded());
        await Assert.ThrowsAsync<ResourceNotFoundException>(() => wait.Guarded());
        Assert.Empty(test.Checkpoints.List());
        Task<Checkpoint> again = test.Checkpoints.CreateAsync(request);
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        test.Time.Advance(Latency);
        Assert.Equal(CheckpointState.Ready, (await again.Guarded()).State);
    }

    [Fact]
    public async Task A_wait_that_takes_too_long_is_told_and_the_checkpoint_goes_on()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        await CreateSourceAsync(test);
        Task<Checkpoint> creation = test.Checkpoints.CreateAsync(
            new CreateCheckpointRequest { From = "source", Name = "chk", WaitTimeout = TimeSpan.FromSeconds(1) });
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(1)).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(1));

        PlatformException error = await Assert.ThrowsAsync<PlatformException>(() => creation.Guarded());

        Assert.Equal(("Operation timed out: checkpoint 'chk' is in state 'starting', not 'checkpoint'", PlatformErrorCode.TimedOut), (error.Message, error.Code));
        test.Time.Advance(Latency);
        Assert.Equal(CheckpointState.Ready, (await test.Checkpoints.WaitAsync("chk").Guarded()).State);
    }

    [Fact]
    public async Task A_starting_checkpoint_can_be_deleted()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        await CreateSourceAsync(test);
        await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk" }).Guarded();
        Task<Checkpoint> wait = test.Checkpoints.WaitAsync("chk");

        await test.Checkpoints.DeleteAsync("chk").Guarded();

        await Assert.ThrowsAsync<ResourceNotFoundException>(() => wait.Guarded());
        Assert.Empty(test.Checkpoints.List());
        Assert.Equal(0, test.Snapshots);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_source_that_ends_meanwhile_is_told(bool delete)
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        await CreateSourceAsync(test);
        await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk" }).Guarded();
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Task<Checkpoint> wait = test.Checkpoints.WaitAsync("chk");

        if (delete)
        {
            await test.Instances.DeleteAsync("source").Guarded();
            await Assert.ThrowsAsync<ResourceNotFoundException>(() => wait.Guarded());
        }
        else
        {
            await test.Instances.StopAsync("source", StopRequest.Forced).Guarded();
            WrongStateException error = await Assert.ThrowsAsync<WrongStateException>(() => wait.Guarded());
            Assert.Equal("Failed to allocate checkpoint: instance 'source' is in state 'stopped'", error.Message);
        }

        Assert.Empty(test.Checkpoints.List());
    }

    [Fact]
    public async Task Snapshots_are_freed_with_their_last_owner()
    {
        await using TestPlatform test = new();
        await CreateSourceAsync(test);
        await test.Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk", WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        Instance holder = await test.Instances
            .CreateAsync(new CreateInstanceRequest { Checkpoint = "chk", Autostart = false })
            .Guarded();
        Checkpoint second = await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = holder.Uuid }).Guarded();
        Assert.Equal(1, test.Snapshots);

        await test.Checkpoints.DeleteAsync("chk").Guarded();
        await test.Instances.DeleteAsync(holder.Uuid).Guarded();
        Assert.Equal(1, test.Snapshots);
        await test.Checkpoints.DeleteAsync(second.Uuid).Guarded();
        Assert.Equal(0, test.Snapshots);
    }

    [Fact]
    public async Task Disposal_ends_a_capture()
    {
        TestPlatform test = new(options => options.CaptureLatency = Latency);
        await CreateSourceAsync(test);
        await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk" }).Guarded();
        Task<Checkpoint> wait = test.Checkpoints.WaitAsync("chk");

        await test.DisposeAsync();

        Exception? error = await Record.ExceptionAsync(() => wait.Guarded());
        Assert.True(error is ObjectDisposedException, $"{error}");
    }

    private static Task<Instance> CreateSourceAsync(TestPlatform test) => test.Instances
        .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with { Name = "source", WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();
}

using Unikraft.Platform.Contracts;
using Unikraft.Platform.InMemory;

namespace Unikraft.Platform.Tests;

/// <summary>Conversions and forks that do not succeed: the instance goes on as if nothing had happened.</summary>
public sealed class GuestRequestTests
{
    private const int Refused = 1111;
    private static readonly TimeSpan Latency = TimeSpan.FromSeconds(3);

    [Theory]
    [InlineData("template")]
    [InlineData("fork")]
    public async Task A_request_while_a_checkpoint_is_pending_is_refused_as_busy(string request)
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        await using ConsoleSession console = await CreateSourceAsync(test);
        await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk" }).Guarded();
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        await console.WriteLineAsync(request);

        Assert.Equal($"{request} error=16", await console.ReadLineAsync());
        Assert.True(test.HasLogged(Refused));
        Assert.Equal(InstanceState.Running, test.Instances.Get("source").State);
        Task<Checkpoint> ready = test.Checkpoints.WaitAsync("chk");
        test.Time.Advance(Latency);
        Assert.Equal(CheckpointState.Ready, (await ready.Guarded()).State);
    }

    [Theory]
    [InlineData("template")]
    [InlineData("fork")]
    public async Task A_request_that_fails_is_refused_and_can_be_made_again(string request)
    {
        Exception? failure = new HypervisorException("disk full");
        await using TestPlatform test = new(options => options.CaptureFailure = _ => failure);
        await using ConsoleSession console = await CreateSourceAsync(test);
        CounterTick first = await console.TickAsync();

        await console.WriteLineAsync(request);
        Assert.Equal($"{request} error=11", await console.ReadLineAsync());
        Assert.Equal(first with { Tick = 2 }, await console.TickAsync());
        Assert.Single(test.Instances.List());
        Assert.Empty(test.Templates.List());
        Assert.Equal(0, test.Snapshots);

        failure = null;
        await console.WriteLineAsync(request);
        string? line = await console.ReadLineAsync();
        Assert.Equal(string.Equals(request, "fork", StringComparison.Ordinal), line?.StartsWith("fork parent child=", StringComparison.Ordinal) ?? false);
    }

    [Fact]
    public async Task A_child_that_cannot_be_made_is_told_to_the_parent()
    {
        await using TestPlatform test = new(options => options.RestoreFailure = _ => new HypervisorException("no memory"));
        await using ConsoleSession console = await CreateSourceAsync(test);

        await console.WriteLineAsync("fork");

        Assert.Equal("fork error=11", await console.ReadLineAsync());
        Assert.Single(test.Instances.List());
        Assert.Equal((1, 0), (test.Machines, test.Snapshots));
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 1)]
    [InlineData(3, 3)]
    public async Task Forks_without_end_are_refused(int max, int instances)
    {
        await using TestPlatform test = new(options: options => options.MaxInstancesForForks = max);
        await using ConsoleSession console = await CreateSourceAsync(test);
        for (int i = 1; i < instances; i++)
        {
            await console.WriteLineAsync("fork");
            Assert.StartsWith("fork parent child=", await console.ReadLineAsync(), StringComparison.Ordinal);
        }

        await console.WriteLineAsync("fork");
        Assert.Equal("fork error=11", await console.ReadLineAsync());
        Assert.Equal(instances, test.Instances.List().Count);

        // The caller of the API decides for himself, and what is gone makes room.
        await test.Instances.CreateAsync(new CreateInstanceRequest { Name = "branch", BranchFrom = "source" }).Guarded();
        foreach (Instance other in test.Instances.List().Where(instance => !string.Equals(instance.Name, "source", StringComparison.Ordinal)))
        {
            await test.Instances.DeleteAsync(other.Uuid).Guarded();
        }

        await console.WriteLineAsync("fork");
        Assert.StartsWith(max > 1 ? "fork parent child=" : "fork error=11", await console.ReadLineAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_guest_that_has_not_reached_main_is_refused()
    {
        await using TestPlatform test = new(options => options.Guests["eager"] = static () => new EagerGuest());
        Instance instance = await test.Instances.CreateAsync(TestPlatform.Request("eager")).Guarded();
        await using ConsoleSession console = new(test.Instances.AttachConsole(instance.Uuid, new ConsoleOptions { FromStart = true }));

        Assert.Equal("error 11", await console.ReadLineAsync());
        Assert.Equal(InstanceState.Starting, test.Instances.Get(instance.Uuid).State);
        Assert.Empty(test.Templates.List());
    }

    [Fact]
    public async Task A_conversion_by_api_that_fails_lets_the_instance_go_on()
    {
        await using TestPlatform test = new(options =>
        {
            options.CaptureLatency = Latency;
            options.CaptureFailure = _ => new HypervisorException("disk full");
        });
        await using ConsoleSession console = await CreateSourceAsync(test);
        CounterTick first = await console.TickAsync();
        Task<Template> conversion = test.Templates.ConvertAsync("source");
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        // It stands still, and a second snapshot is refused.
        await console.WriteLineAsync("tick");
        PlatformException pending = await Assert.ThrowsAsync<PlatformException>(() => test.Templates.ConvertAsync("source").Guarded());
        Assert.Equal(
            ("Cannot turn instance 'source' with pending snapshot into a template", PlatformErrorCode.SnapshotPending),
            (pending.Message, pending.Code));
        Assert.Equal(InstanceState.Running, test.Instances.Get("source").State);
        test.Time.Advance(Latency);

        HypervisorException error = await Assert.ThrowsAsync<HypervisorException>(() => conversion.Guarded());
        Assert.Equal("disk full", error.Message);
        Assert.Equal(first with { Tick = 2 }, CounterTick.Parse((await console.ReadLineAsync())!));
        Assert.Empty(test.Templates.List());
        Assert.Equal("source", Assert.Single(test.Instances.List()).Name);
    }

    [Fact]
    public async Task A_conversion_that_is_cancelled_lets_the_instance_go_on()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        await using ConsoleSession console = await CreateSourceAsync(test);
        using CancellationTokenSource cancellation = new();
        Task<Template> conversion = test.Templates.ConvertAsync("source", cancellation.Token);
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => conversion.Guarded());
        Assert.Equal(1, (await console.TickAsync()).Tick);
        Task<Template> again = test.Templates.ConvertAsync("source");
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        test.Time.Advance(Latency);
        Assert.Equal("source", (await again.Guarded()).Name);
        Assert.Equal((0, 1), (test.Machines, test.Snapshots));
    }

    [Fact]
    public async Task A_stop_wins_over_a_conversion_that_is_under_way()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        await using ConsoleSession console = await CreateSourceAsync(test);
        Task<Template> conversion = test.Templates.ConvertAsync("source");
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Task<Instance> stop = test.Instances.StopAsync("source", new StopRequest { GracePeriod = Timeout.InfiniteTimeSpan });
        test.Time.Advance(Latency);

        WrongStateException error = await Assert.ThrowsAsync<WrongStateException>(() => conversion.Guarded());

        Assert.Equal("Cannot turn instance 'source' in state 'stopping' into a template", error.Message);
        Assert.Equal("-UPAK", (await stop.Guarded()).StopReason?.ToMask());
        Assert.Empty(test.Templates.List());
        Assert.Equal(0, test.Snapshots);
        Assert.Equal(InstanceState.Stopped, test.Instances.Get("source").State);
    }

    [Theory]
    [InlineData("delete")]
    [InlineData("kill")]
    [InlineData("dispose")]
    public async Task What_ends_the_instance_ends_its_conversion(string end)
    {
        TestPlatform test = new(options => options.CaptureLatency = Latency);
        await using ConsoleSession console = await CreateSourceAsync(test);
        Task<Template> conversion = test.Templates.ConvertAsync("source");
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        Task ended = end switch
        {
            "delete" => test.Instances.DeleteAsync("source"),
            "kill" => test.Instances.StopAsync("source", StopRequest.Forced),
            _ => test.DisposeAsync().AsTask(),
        };

        Exception? error = await Record.ExceptionAsync(() => conversion.Guarded());

        await ended.Guarded();
        Type expected = end switch
        {
            "delete" => typeof(ResourceNotFoundException),
            "kill" => typeof(WrongStateException),
            _ => typeof(ObjectDisposedException),
        };
        Assert.Equal(expected, error?.GetType());
        await test.DisposeAsync();
    }

    [Theory]
    [InlineData("template")]
    [InlineData("fork")]
    public async Task Disposal_ends_a_request_that_is_under_way(string request)
    {
        TestPlatform test = new(options => options.CaptureLatency = Latency);
        await using ConsoleSession console = await CreateSourceAsync(test);
        await console.WriteLineAsync(request);
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        await test.DisposeAsync();

        Assert.Empty(test.Errors());
    }

    [Fact]
    public async Task Snapshots_of_templates_are_freed_with_their_last_owner()
    {
        await using TestPlatform test = new();
        await (await CreateSourceAsync(test)).DisposeAsync();
        await test.Templates.ConvertAsync("source").Guarded();
        Instance holder = await test.Instances.CreateAsync(new CreateInstanceRequest { Template = "source", Autostart = false }).Guarded();
        await test.Templates.DeleteAsync("source").Guarded();
        Assert.Equal((0, 1), (test.Machines, test.Snapshots));

        await test.Templates.ConvertAsync(holder.Uuid).Guarded();
        Assert.Equal(1, test.Snapshots);
        await test.Templates.DeleteAsync(holder.Uuid).Guarded();

        Assert.Equal(0, test.Snapshots);
    }

    [Fact]
    public async Task A_conversion_is_no_reason_to_restart()
    {
        await using TestPlatform test = new();
        CreateInstanceRequest request = TestPlatform.Request("counter", "--period-ms", "0") with
        {
            Name = "source",
            RestartPolicy = RestartPolicy.Always,
            WaitTimeout = Timeout.InfiniteTimeSpan,
        };
        await test.Instances.CreateAsync(request).Guarded();

        await test.Templates.ConvertAsync("source").Guarded();

        test.Time.Advance(TimeSpan.FromMinutes(10));
        Assert.Empty(test.Instances.List());
        Assert.Equal(0, test.Machines);
    }

    private static async Task<ConsoleSession> CreateSourceAsync(TestPlatform test)
    {
        await test.Instances
            .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with { Name = "source", WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        return new ConsoleSession(test.Instances.AttachConsole("source", new ConsoleOptions()));
    }

    /// <summary>Asks to become a template before it has reached main.</summary>
    private sealed class EagerGuest : ScriptedGuest
    {
        private bool _hasAsked;

        public override bool StartsAtMain => false;

        public override GuestStep Step(ScriptedGuestContext context)
        {
            if (_hasAsked)
            {
                context.WriteLine($"error {context.RequestError}");
                return GuestStep.Wait(GuestEvents.StopRequested);
            }

            _hasAsked = true;
            return GuestStep.BecomeTemplate;
        }

        public override ScriptedGuest Clone() => (ScriptedGuest)MemberwiseClone();
    }
}

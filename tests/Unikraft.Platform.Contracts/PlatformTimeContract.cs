using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

/// <summary>What a platform does when time passes, on every backend. Its clock is virtual, whatever that of the machines is.</summary>
public abstract class PlatformTimeContract : IAsyncLifetime
{
    private static readonly TimeSpan Hour = TimeSpan.FromHours(1);
    private static readonly TimeSpan Tick = TimeSpan.FromMilliseconds(1);

    private readonly ManualTimeProvider _time = new();
    private IUnikraftPlatform _platform = null!;

    private IInstanceManager Instances => _platform.Instances;

    /// <summary>Makes the backend.</summary>
    /// <param name="context">Its context, with the clock of the platform.</param>
    protected abstract IHypervisor NewHypervisor(HypervisorContext context);

    /// <summary>The image of a guest.</summary>
    /// <param name="name"><c>counter</c> or <c>crash</c>.</param>
    protected abstract GuestImage Image(string name);

    /// <inheritdoc/>
    public virtual Task InitializeAsync()
    {
        _platform = new UnikraftPlatformBuilder().UseTimeProvider(_time).UseHypervisor(NewHypervisor).Build();
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public virtual async Task DisposeAsync() => await _platform.DisposeAsync().Guarded();

    [ContractTheory]
    [InlineData(RestartPolicy.OnFailure, "div0")]
    [InlineData(RestartPolicy.Always, "exit 0")]
    public async Task A_guest_that_ends_again_and_again_is_restarted_at_the_documented_delays(RestartPolicy policy, string end)
    {
        Instance instance = await CreateAsync(policy, "crash", end.Split(' '));
        int[] delays = [5, 10, 20, 40, 300, 300];
        for (int i = 0; i < delays.Length; i++)
        {
            TimeSpan delay = TimeSpan.FromSeconds(delays[i]);
            await _time.WaitForTimerAsync(delay).Guarded();
            Instance waiting = await Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded();
            Assert.Equal(new RestartStatus(i + 2, _time.GetUtcNow() + delay), waiting.Restart);
            Assert.Equal((i + 2, i + 1), (waiting.StartCount, waiting.RestartCount));
            _time.Advance(delay - Tick);
            Assert.Equal(i + 2, Instances.Get(instance.Uuid).StartCount);
            _time.Advance(Tick);
        }

        await _time.WaitForTimerAsync(TimeSpan.FromMinutes(5)).Guarded();
        Instance stopped = await Instances.StopAsync(instance.Uuid).Guarded();
        Assert.Equal((InstanceState.Stopped, null), (stopped.State, stopped.Restart));
    }

    [ContractTheory]
    [InlineData(RestartPolicy.Never, "div0")]
    [InlineData(RestartPolicy.OnFailure, "exit 1")]
    public async Task A_guest_whose_policy_does_not_restart_it_stays_stopped(RestartPolicy policy, string end)
    {
        Instance instance = await CreateAsync(policy, "crash", end.Split(' '));

        Instance stopped = await Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded();

        Assert.Null(stopped.Restart);
        _time.Advance(Hour);
        Assert.Equal((1, 0), (Instances.Get(instance.Uuid).StartCount, Instances.Get(instance.Uuid).RestartCount));
    }

    /// <remarks>Under virtual time: however slow the host is, the kernel of the guest has the time that it needs for this.</remarks>
    [ContractTheory]
    [InlineData("loop")]
    [InlineData("ignore-stop")]
    public async Task Stop_reason_13_an_app_that_does_not_listen_within_its_grace_period(string kind)
    {
        TimeSpan grace = TimeSpan.FromSeconds(3);
        foreach (TimeSpan period in (TimeSpan[])[TimeSpan.Zero, grace])
        {
            Instance instance = await Instances.CreateAsync(Request("crash", kind) with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            await using (ConsoleSession console = new(Instances.AttachConsole(instance.Uuid, new ConsoleOptions { FromStart = true })))
            {
                await console.ReadLineAsync("crashing: ");
            }

            Task<Instance> stopping = Instances.StopAsync(instance.Uuid, new StopRequest { GracePeriod = period });
            if (period > TimeSpan.Zero)
            {
                _time.Advance(period - Tick);
                Assert.Equal(InstanceState.Stopping, Instances.Get(instance.Uuid).State);
                _time.Advance(Tick);
            }

            Instance stopped = await stopping.Guarded();
            Assert.Equal("-UP-K", stopped.StopReason!.Value.ToMask());
            Assert.Equal(new StopCode(StopCodeReason.Exception, errno: 110, isShuttingDown: true), stopped.StopCode);
            Assert.Null(stopped.ExitCode);
        }
    }

    [ContractFact]
    public async Task Instances_checkpoints_and_templates_are_removed_when_their_time_is_up()
    {
        AutokillPolicy afterAnHour = new(Hour);
        Instance source = await Instances.CreateAsync(Request("counter", "--period-ms", "0") with { Autokill = afterAnHour, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await _platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid, Name = "point", Autokill = afterAnHour, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Instance loaded = await Instances.CreateAsync(new CreateInstanceRequest { Name = "loaded", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await _platform.Templates.ConvertAsync("loaded", afterAnHour).Guarded();

        // What runs is not removed, and a clone begins the time of its template anew.
        _time.Advance(Hour - Tick);
        Instance clone = await Instances.CreateAsync(new CreateInstanceRequest { Template = "loaded", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal((InstanceState.Running, InstanceState.Running), (Instances.Get(source.Uuid).State, clone.State));
        await Instances.StopAsync(source.Uuid, StopRequest.Forced).Guarded();
        _time.Advance(Tick);
        Assert.Empty(_platform.Checkpoints.List());
        Assert.Single(_platform.Templates.List());

        _time.Advance(Hour - (2 * Tick));
        Assert.Contains(Instances.List(), instance => instance.Uuid == source.Uuid);
        _time.Advance(Tick);
        Assert.Equal([clone.Uuid], Instances.List().Select(static instance => instance.Uuid));
        Assert.Empty(_platform.Templates.List());
        Assert.NotEqual(loaded.Uuid, clone.Uuid);
    }

    private CreateInstanceRequest Request(string image, params string[] args) => new() { Image = Image(image), Args = args };

    private Task<Instance> CreateAsync(RestartPolicy policy, string image, string[] args) => Instances.CreateAsync(Request(image, args) with { RestartPolicy = policy }).Guarded();
}

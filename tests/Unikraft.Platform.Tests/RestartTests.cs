using Unikraft.Platform.Contracts;
using Unikraft.Platform.InMemory;

namespace Unikraft.Platform.Tests;

public sealed class RestartTests
{
    private static readonly TimeSpan Tick = TimeSpan.FromTicks(1);

    [Fact]
    public async Task A_crash_loop_is_slowed_down_by_the_documented_delays()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, RestartPolicy.OnFailure, "crash", "div0");
        int[] delays = [5, 10, 20, 40, 300, 300];

        // The first restart is immediate.
        Instance waiting = await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(delays[0]));
        Assert.Equal((2, 1), (waiting.StartCount, waiting.RestartCount));
        for (int i = 0; i < delays.Length; i++)
        {
            DateTimeOffset due = test.Time.GetUtcNow().AddSeconds(delays[i]);
            Assert.Equal(new RestartStatus(i + 2, due), test.Instances.Get(instance.Uuid).Restart);
            Assert.Equal(StopReason.Kernel, test.Instances.Get(instance.Uuid).StopReason);
            test.Time.Advance(TimeSpan.FromSeconds(delays[i]) - Tick);
            Assert.Equal(i + 2, test.Instances.Get(instance.Uuid).StartCount);
            test.Time.Advance(Tick);
            int next = i + 1 < delays.Length ? delays[i + 1] : 300;
            waiting = await RestartAtAsync(test, instance, attempt: i + 3, TimeSpan.FromSeconds(next));
            Assert.Equal((i + 3, i + 2), (waiting.StartCount, waiting.RestartCount));
        }
    }

    [Fact]
    public async Task Ten_seconds_without_problems_end_the_sequence()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, RestartPolicy.Always, "counter", "--period-ms", "0");
        await ExitAsync(test, instance, starts: 1);
        await RunsAsync(test, instance, starts: 2);
        Assert.Equal(new RestartStatus(1, NextAt: null), test.Instances.Get(instance.Uuid).Restart);

        test.Time.Advance(TimeSpan.FromSeconds(10) - Tick);
        Assert.NotNull(test.Instances.Get(instance.Uuid).Restart);
        test.Time.Advance(Tick);
        Assert.Null(test.Instances.Get(instance.Uuid).Restart);

        // The next restart is immediate again, and the one after that is not.
        await ExitAsync(test, instance, starts: 2);
        await RunsAsync(test, instance, starts: 3);
        test.Time.Advance(TimeSpan.FromSeconds(10) - Tick);
        await ExitAsync(test, instance, starts: 3);
        Instance waiting = await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(5));
        Assert.Equal((3, 2), (waiting.StartCount, waiting.RestartCount));
    }

    [Theory]
    [InlineData(RestartPolicy.Never, "crash div0", false)]
    [InlineData(RestartPolicy.Never, "crash exit 1", false)]
    [InlineData(RestartPolicy.OnFailure, "crash div0", true)]
    [InlineData(RestartPolicy.OnFailure, "crash abort 5", true)]
    [InlineData(RestartPolicy.OnFailure, "crash exit 1", false)]
    [InlineData(RestartPolicy.OnFailure, "crash vanish", false)]
    [InlineData(RestartPolicy.Always, "crash div0", true)]
    [InlineData(RestartPolicy.Always, "crash exit 0", true)]
    [InlineData(RestartPolicy.Always, "crash vanish", true)]
    public async Task The_policy_decides(RestartPolicy policy, string command, bool restarts)
    {
        await using TestPlatform test = new();
        string[] words = command.Split(' ');
        Instance instance = await CreateAsync(test, policy, words[0], words[1..]);

        if (restarts)
        {
            await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(5));
        }
        else
        {
            Instance stopped = await test.WaitAsync(instance.Uuid, InstanceState.Stopped);
            Assert.Null(stopped.Restart);
            Assert.Equal((1, 0), (stopped.StartCount, stopped.RestartCount));
            Assert.Equal(0, test.Time.ArmedTimers);
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_manual_stop_aborts_the_sequence(bool force)
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, RestartPolicy.Always, "crash", "div0");
        await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(5));

        Instance stopped = await test.Instances.StopAsync(instance.Uuid, new StopRequest { Force = force }).Guarded();

        Assert.Equal((InstanceState.Stopped, null), (stopped.State, stopped.Restart));
        // How it stopped stays as it was.
        Assert.Equal(StopReason.Kernel, stopped.StopReason);
        Assert.Equal(0, test.Time.ArmedTimers);
    }

    [Fact]
    public async Task A_manual_start_aborts_the_sequence_and_begins_anew()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, RestartPolicy.OnFailure, "crash", "div0");
        await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(5));

        await test.Instances.StartAsync(instance.Uuid).Guarded();

        // Crashes, restarts at once, crashes: the second attempt of a new sequence.
        Instance waiting = await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(5), starts: 4);
        Assert.Equal(2, waiting.RestartCount);
    }

    [Theory]
    [InlineData(RestartPolicy.Always)]
    [InlineData(RestartPolicy.OnFailure)]
    public async Task A_stop_that_somebody_asked_for_is_not_followed_by_a_restart(RestartPolicy policy)
    {
        await using TestPlatform test = new();
        Instance crashing = await CreateAsync(test, policy, "crash", "crash-on-stop");
        Instance exiting = await CreateAsync(test, policy, "counter", "--period-ms", "0");

        Assert.Null((await test.Instances.StopAsync(crashing.Uuid).Guarded()).Restart);
        await test.Platform.StopAllAsync().Guarded();

        Assert.All(test.Instances.List(), instance => Assert.Equal((InstanceState.Stopped, null, 1), (instance.State, instance.Restart, instance.StartCount)));
        Assert.Equal("--PAK", test.Instances.Get(exiting.Uuid).StopReason!.Value.ToMask());
    }

    [Fact]
    public async Task Stopping_everything_ends_restart_sequences()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, RestartPolicy.Always, "crash", "div0");
        await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(5));

        await test.Platform.StopAllAsync().Guarded();

        Assert.Null(test.Instances.Get(instance.Uuid).Restart);
        Assert.Equal(0, test.Time.ArmedTimers);
    }

    [Fact]
    public async Task A_restart_that_cannot_make_its_machine_is_tried_again_later()
    {
        bool fails = false;
        await using TestPlatform test = new(options => options.CreateFailure =
            _ => Volatile.Read(ref fails) ? new HypervisorException("no memory") : null);
        Instance instance = await CreateAsync(test, RestartPolicy.Always, "counter", "--period-ms", "0");
        Volatile.Write(ref fails, true);
        await ExitAsync(test, instance, starts: 1);

        Instance waiting = await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(5), starts: 1);
        Assert.Equal((1, 0), (waiting.StartCount, waiting.RestartCount));
        Assert.True(test.HasLogged(1102));
        Volatile.Write(ref fails, false);
        test.Time.Advance(TimeSpan.FromSeconds(5));

        await RunsAsync(test, instance, starts: 2);
        Assert.Equal(1, test.Instances.Get(instance.Uuid).RestartCount);
    }

    [Fact]
    public async Task Deleting_ends_the_sequence()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, RestartPolicy.Always, "crash", "div0");
        await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(5));

        await test.Instances.DeleteAsync(instance.Uuid).Guarded();

        Assert.Equal(0, test.Time.ArmedTimers);
    }

    private static Task<Instance> CreateAsync(TestPlatform test, RestartPolicy policy, string image, params string[] args) =>
        test.Instances.CreateAsync(TestPlatform.Request(image, args) with { RestartPolicy = policy }).Guarded();

    [Fact]
    public async Task A_restart_by_the_policy_begins_anew_what_a_wait_has_passed()
    {
        await using TestPlatform test = new();
        Instance instance = await CreateAsync(test, RestartPolicy.Always, "crash", "div0");
        await RestartAtAsync(test, instance, attempt: 2, TimeSpan.FromSeconds(5));

        // Between two runs the last one counts: it did run, and it did stop.
        Instance waiting = await test.Instances.WaitAsync(instance.Uuid, InstanceState.Running, TimeSpan.Zero).Guarded();
        Assert.Equal((InstanceState.Stopped, 2), (waiting.State, waiting.StartCount));
        Assert.NotNull(waiting.Restart?.NextAt);

        // A run that goes on has not stopped, whatever the ones before did.
        Instance counter = await CreateAsync(test, RestartPolicy.Always, "counter", "--period-ms", "0");
        await ExitAsync(test, counter, starts: 1);
        await RunsAsync(test, counter, starts: 2);
        await Assert.ThrowsAsync<OperationTimedOutException>(
            () => test.Instances.WaitAsync(counter.Uuid, InstanceState.Stopped, TimeSpan.Zero).Guarded());
    }

    private static async Task<Instance> RestartAtAsync(
        TestPlatform test,
        Instance instance,
        int attempt,
        TimeSpan delay,
        int? starts = null)
    {
        // The timer is armed in the change that stops the instance.
        await test.Time.WaitForTimerAsync(delay).Guarded();
        Instance waiting = await test.WaitAsync(instance.Uuid, InstanceState.Stopped);
        Assert.Equal(attempt, waiting.Restart?.Attempt);
        Assert.Equal(test.Time.GetUtcNow() + delay, waiting.Restart?.NextAt);
        Assert.Equal(starts ?? waiting.StartCount, waiting.StartCount);
        return waiting;
    }

    private static async Task ExitAsync(TestPlatform test, Instance instance, int starts)
    {
        await RunsAsync(test, instance, starts);
        await using ConsoleSession console = new(test.Instances.AttachConsole(instance.Uuid));
        // Asked for before, because a restart without delay passes the state at once.
        Task<Instance> stopped = test.WaitAsync(instance.Uuid, InstanceState.Stopped);
        await console.WriteLineAsync("exit 0");
        await stopped;
    }

    private static async Task RunsAsync(TestPlatform test, Instance instance, int starts)
    {
        using CancellationTokenSource watchdog = new(TimeSpan.FromMinutes(1));
        while ((await test.WaitAsync(instance.Uuid, InstanceState.Running)).StartCount != starts)
        {
            watchdog.Token.ThrowIfCancellationRequested();
            await Task.Yield();
        }
    }
}

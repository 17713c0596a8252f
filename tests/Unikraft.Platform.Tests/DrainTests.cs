using Unikraft.Platform.Contracts;

namespace Unikraft.Platform.Tests;

public sealed class DrainTests
{
    private static readonly TimeSpan Tick = TimeSpan.FromTicks(1);

    [Fact]
    public async Task A_stop_without_a_drain_timeout_or_with_0_does_not_drain()
    {
        foreach (StopRequest? request in new[] { null, new StopRequest { DrainTimeout = TimeSpan.Zero } })
        {
            await using TestPlatform test = new();
            Instance instance = await test.CreateCounterAsync();
            using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();

            Instance stopped = await test.Instances.StopAsync(instance.Uuid, request).Guarded();

            Assert.Equal("-UPAK", stopped.StopReason!.Value.ToMask());
            await connection.Closed.Guarded();
        }
    }

    [Theory]
    [InlineData(5000, 5)]
    [InlineData(-1, 90)]
    public async Task Draining_ends_when_the_time_is_up(int drainMilliseconds, int seconds)
    {
        await using TestPlatform test = new(options: options => options.MaxDrainTimeout = TimeSpan.FromSeconds(90));
        Instance instance = await test.CreateCounterAsync();
        using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();

        Task<Instance> stop = test.Instances.StopAsync(
            instance.Uuid,
            new StopRequest { DrainTimeout = TimeSpan.FromMilliseconds(drainMilliseconds) });
        test.Time.Advance(TimeSpan.FromSeconds(seconds) - Tick);
        Assert.Equal(InstanceState.Draining, test.Instances.Get(instance.Uuid).State);
        Assert.False(connection.Closed.IsCompleted);
        test.Time.Advance(Tick);

        Assert.Equal("-UPAK", (await stop.Guarded()).StopReason!.Value.ToMask());
        await connection.Closed.Guarded();
    }

    [Fact]
    public async Task Without_connections_draining_is_over_at_once()
    {
        await using TestPlatform test = new();
        Instance instance = await test.CreateCounterAsync();
        IAsyncEnumerable<InstanceTransition> watch = test.Instances.WatchAsync(instance.Uuid);

        await test.Instances.StopAsync(instance.Uuid, new StopRequest { DrainTimeout = TimeSpan.FromSeconds(5) }).Guarded();

        await test.Instances.DeleteAsync(instance.Uuid).Guarded();
        List<InstanceState?> states = [];
        await foreach (InstanceTransition transition in watch)
        {
            states.Add(transition.To);
        }

        Assert.Equal([InstanceState.Draining, InstanceState.Stopping, InstanceState.Stopped, null], states);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_stop_while_draining_stops_at_once(bool force)
    {
        await using TestPlatform test = new();
        Instance instance = await test.CreateCounterAsync();
        using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();
        Task<Instance> drain = test.Instances.StopAsync(instance.Uuid, new StopRequest { DrainTimeout = TimeSpan.FromSeconds(5) });

        Instance stopped = await test.Instances.StopAsync(instance.Uuid, force ? StopRequest.Forced : null).Guarded();

        Assert.Equal(force ? "FUP--" : "-UPAK", stopped.StopReason!.Value.ToMask());
        Assert.Equal(stopped.StopReason, (await drain.Guarded()).StopReason);
    }

    [Fact]
    public async Task A_second_drain_can_only_shorten_the_first()
    {
        await using TestPlatform test = new();
        Instance instance = await test.CreateCounterAsync();
        using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();
        Task<Instance>[] drains =
        [
            .. new[] { 60, 5, 30 }.Select(seconds => test.Instances.StopAsync(
                instance.Uuid,
                new StopRequest { DrainTimeout = TimeSpan.FromSeconds(seconds) })),
        ];

        test.Time.Advance(TimeSpan.FromSeconds(5) - Tick);
        Assert.Equal(InstanceState.Draining, test.Instances.Get(instance.Uuid).State);
        test.Time.Advance(Tick);

        await Task.WhenAll(drains).Guarded();
    }

    [Fact]
    public async Task A_guest_that_crashes_while_draining_ends_it_and_is_not_restarted()
    {
        await using TestPlatform test = new();
        Instance instance = await test.Instances.CreateAsync(
            TestPlatform.Request("counter", "--period-ms", "0") with { RestartPolicy = RestartPolicy.Always, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        using IInstanceConnection connection = await test.Instances.ConnectAsync(instance.Uuid).Guarded();
        Task<Instance> drain = test.Instances.StopAsync(instance.Uuid, new StopRequest { DrainTimeout = TimeSpan.FromSeconds(5) });

        await using ConsoleSession console = new(test.Instances.AttachConsole(instance.Uuid));
        await console.WriteLineAsync("exit 7");

        Instance stopped = await drain.Guarded();
        Assert.Equal(("-UPAK", 7, null), (stopped.StopReason!.Value.ToMask(), stopped.ExitCode, stopped.Restart));
        test.Time.Advance(TimeSpan.FromHours(2));
        Assert.Equal((InstanceState.Stopped, 1), (test.Instances.Get(instance.Uuid).State, test.Instances.Get(instance.Uuid).StartCount));
    }
}

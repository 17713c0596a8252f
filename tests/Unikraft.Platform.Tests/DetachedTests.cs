using Unikraft.Platform.Contracts;

namespace Unikraft.Platform.Tests;

/// <summary>What outlives a call has nothing of the context of its caller: neither its trace, nor what it would keep in memory.</summary>
public sealed class DetachedTests
{
    private readonly AsyncLocal<string?> _ambient = new();
    private readonly List<(string Owner, string? Seen)> _timers = [];

    [Fact]
    public async Task Timers_that_outlive_a_call_have_nothing_of_its_caller()
    {
        await using TestPlatform test = new();
        test.Time.TimerMade = Note;
        _ambient.Value = "caller";
        Instance draining = await test.Instances
            .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with { Autokill = new AutokillPolicy(TimeSpan.FromHours(1)), WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        using (IInstanceConnection connection = await test.Instances.ConnectAsync(draining.Uuid).Guarded())
        {
            Task<Instance> stop = test.Instances.StopAsync(draining.Uuid, new StopRequest { DrainTimeout = TimeSpan.FromSeconds(5), GracePeriod = TimeSpan.FromSeconds(60) });
            test.Time.Advance(TimeSpan.FromSeconds(5));
            await stop.Guarded();
        }

        await test.Instances.CreateAsync(TestPlatform.Request("crash", "div0") with { RestartPolicy = RestartPolicy.Always }).Guarded();
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(5)).Guarded();
        await test.Instances
            .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with
            {
                ScaleToZero = new ScaleToZero(Stateful: true, TimeSpan.FromSeconds(7)),
                WaitTimeout = Timeout.InfiniteTimeSpan,
            })
            .Guarded();
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(7)).Guarded();

        lock (_timers)
        {
            Assert.All(_timers, static timer => Assert.Null(timer.Seen));
            Assert.Superset(
                new HashSet<string>(["ConnectionDrain", "IdleTimer", "RestartScheduler", "Retention", "StopEscalation"], StringComparer.Ordinal),
                _timers.Select(static timer => timer.Owner).ToHashSet(StringComparer.Ordinal));
        }
    }

    [Fact]
    public async Task Work_that_outlives_a_call_has_nothing_of_its_caller_and_the_caller_keeps_what_it_has()
    {
        _ambient.Value = "caller";
        string? seen = "nothing";
        Task work = Detached.Begin(() =>
        {
            seen = _ambient.Value;
            return Task.CompletedTask;
        });
        Assert.False(ExecutionContext.IsFlowSuppressed());
        Assert.Equal("caller", _ambient.Value);
        await work.Guarded();
        Assert.Null(seen);
    }

    // The waits of callers have timers of the runtime, and are part of the call.
    private void Note(TimerCallback callback)
    {
        if (callback.Method.DeclaringType is { } owner && owner.Assembly == typeof(UnikraftPlatform).Assembly)
        {
            lock (_timers)
            {
                _timers.Add(((owner.DeclaringType ?? owner).Name, _ambient.Value));
            }
        }
    }
}

namespace Unikraft.Platform.TestKit.Tests;

public sealed class ManualTimeProviderTests
{
    [Fact]
    public void Timers_fire_in_due_order_and_see_their_own_time()
    {
        ManualTimeProvider time = new();
        DateTimeOffset start = time.GetUtcNow();
        List<(string Name, TimeSpan At)> fired = [];
        using ITimer late = time.CreateTimer(_ => fired.Add(("late", time.GetUtcNow() - start)), null, Seconds(3), Timeout.InfiniteTimeSpan);
        using ITimer early = time.CreateTimer(_ => fired.Add(("early", time.GetUtcNow() - start)), null, Seconds(1), Timeout.InfiniteTimeSpan);
        using ITimer twin = time.CreateTimer(_ => fired.Add(("twin", time.GetUtcNow() - start)), null, Seconds(3), Timeout.InfiniteTimeSpan);

        time.Advance(Seconds(10));

        Assert.Equal([("early", Seconds(1)), ("late", Seconds(3)), ("twin", Seconds(3))], fired);
        Assert.Equal(start + Seconds(10), time.GetUtcNow());
        Assert.Equal(0, time.ArmedTimers);
    }

    [Fact]
    public void Nothing_fires_before_it_is_due()
    {
        ManualTimeProvider time = new();
        int fired = 0;
        using ITimer timer = time.CreateTimer(_ => fired++, null, Seconds(1), Timeout.InfiniteTimeSpan);

        time.Advance(Seconds(1) - TimeSpan.FromTicks(1));
        Assert.Equal(0, fired);
        Assert.Equal(TimeSpan.FromTicks(1), time.NextDue);

        time.Advance(TimeSpan.FromTicks(1));
        Assert.Equal(1, fired);
        Assert.Null(time.NextDue);
    }

    [Fact]
    public void A_periodic_timer_fires_each_period_until_it_is_disposed_of()
    {
        ManualTimeProvider time = new();
        int fired = 0;
        ITimer timer = time.CreateTimer(_ => fired++, null, TimeSpan.Zero, Seconds(2));

        time.Advance(TimeSpan.Zero);
        Assert.Equal(1, fired);
        time.Advance(Seconds(5));
        Assert.Equal(3, fired);

        timer.Dispose();
        time.Advance(Seconds(5));
        Assert.Equal(3, fired);
        Assert.False(timer.Change(Seconds(1), Seconds(1)));
    }

    [Fact]
    public void A_timer_armed_by_a_callback_fires_in_the_same_advance()
    {
        ManualTimeProvider time = new();
        List<string> fired = [];
        ITimer? second = null;
        using ITimer first = time.CreateTimer(
            _ =>
            {
                fired.Add("first");
                second = time.CreateTimer(_ => fired.Add("second"), null, Seconds(1), Timeout.InfiniteTimeSpan);
            },
            null,
            Seconds(1),
            Timeout.InfiniteTimeSpan);

        time.Advance(Seconds(2));

        Assert.Equal(["first", "second"], fired);
        second!.Dispose();
    }

    [Fact]
    public async Task Delays_and_timestamps_follow_the_clock()
    {
        ManualTimeProvider time = new();
        long before = time.GetTimestamp();
        Task delay = Task.Delay(Seconds(5), time);

        Assert.Equal(Seconds(5), time.AdvanceToNextTimer());

        await delay;
        Assert.Equal(Seconds(5), time.GetElapsedTime(before));
    }

    [Fact]
    public async Task Waiting_for_a_timer_completes_when_another_thread_has_armed_it()
    {
        ManualTimeProvider time = new();
        Task armed = time.WaitForTimerAsync(Seconds(20));
        Assert.False(armed.IsCompleted);

        Task delay = Task.Run(() => Task.Delay(Seconds(20), time));
        await armed;
        time.Advance(Seconds(20));
        await delay;
    }

    [Fact]
    public void Time_does_not_go_back() =>
        Assert.Throws<ArgumentOutOfRangeException>(() => new ManualTimeProvider().Advance(TimeSpan.FromTicks(-1)));

    [Fact]
    public void A_jump_of_the_wall_clock_lets_no_time_pass()
    {
        ManualTimeProvider time = new();
        (DateTimeOffset start, long timestamp) = (time.GetUtcNow(), time.GetTimestamp());
        int fired = 0;
        using ITimer timer = time.CreateTimer(_ => fired++, state: null, Seconds(20), Timeout.InfiniteTimeSpan);
        time.Jump(TimeSpan.FromDays(1));
        time.Advance(TimeSpan.Zero);
        Assert.Equal((start.AddDays(1), timestamp, 0), (time.GetUtcNow(), time.GetTimestamp(), fired));
        time.Jump(TimeSpan.FromDays(-2));
        time.Advance(Seconds(20));
        Assert.Equal((start.AddDays(-1) + Seconds(20), 1), (time.GetUtcNow(), fired));
    }

    [Fact]
    public async Task Two_who_advance_at_once_pass_both_their_spans()
    {
        ManualTimeProvider time = new();
        DateTimeOffset start = time.GetUtcNow();

        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(() =>
        {
            for (int i = 0; i < 1000; i++)
            {
                time.Advance(TimeSpan.FromMilliseconds(1));
            }
        })));

        Assert.Equal(start + Seconds(8), time.GetUtcNow());
    }

    private static TimeSpan Seconds(int seconds) => TimeSpan.FromSeconds(seconds);
}

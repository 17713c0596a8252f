namespace Unikraft.Platform.TestKit;

/// <summary>A clock that stands still until it is advanced. Timers fire on the thread that advances it, in the order in which they are due.</summary>
/// <remarks>
/// Thread-safe. Timers due at the same moment fire in the order in which they were armed, and each sees the time at which it is due. A timer that
/// a callback arms for within the advanced span fires in the same <see cref="Advance"/>. Callbacks have the context in which their timer was made, as those of
/// the system have, and an empty one where its flow was suppressed.
/// </remarks>
public sealed class ManualTimeProvider : TimeProvider
{
    private static readonly ExecutionContext s_empty = CaptureEmpty();

    private readonly Lock _gate = new();
    private readonly List<ManualTimer> _armed = [];
    private readonly List<Waiter> _waiters = [];
    private readonly DateTimeOffset _start;
    private long _now;
    private long _jumped;
    private long _target;
    private long _sequence;

    /// <summary>Makes a clock.</summary>
    /// <param name="start">The time it shows at first. Default: 2026-01-01 00:00:00 UTC.</param>
    public ManualTimeProvider(DateTimeOffset? start = null) =>
        _start = start ?? new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);

    /// <inheritdoc/>
    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    /// <inheritdoc/>
    public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;

    /// <summary>Called with the callback of each timer that is made, in the context that the callback will have.</summary>
    public Action<TimerCallback>? TimerMade { get; set; }

    /// <summary>How many timers are armed.</summary>
    public int ArmedTimers
    {
        get
        {
            lock (_gate)
            {
                return _armed.Count;
            }
        }
    }

    /// <summary>In how long the next timer is due; <see langword="null"/> when none is armed.</summary>
    public TimeSpan? NextDue
    {
        get
        {
            lock (_gate)
            {
                return Earliest() is { } timer ? TimeSpan.FromTicks(timer.Due - _now) : null;
            }
        }
    }

    /// <inheritdoc/>
    public override DateTimeOffset GetUtcNow()
    {
        lock (_gate)
        {
            return _start.AddTicks(_now + _jumped);
        }
    }

    /// <inheritdoc/>
    public override long GetTimestamp()
    {
        lock (_gate)
        {
            return _now;
        }
    }

    /// <summary>Lets time pass, and fires the timers that become due.</summary>
    /// <param name="span">How much; zero fires what is due now.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="span"/> is negative.</exception>
    public void Advance(TimeSpan span)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(span, TimeSpan.Zero);
        long target;
        lock (_gate)
        {
            // Two callers who advance at once pass both their spans.
            target = _target += span.Ticks;
        }

        while (TakeDue(target) is { } timer)
        {
            timer.Fire();
        }
    }

    /// <summary>Sets the wall clock forwards or backwards, as whoever administers a host does. No time passes: nothing becomes due, and timestamps go on.</summary>
    /// <param name="span">By how much.</param>
    public void Jump(TimeSpan span)
    {
        lock (_gate)
        {
            _jumped += span.Ticks;
        }
    }

    /// <summary>Advances to the moment at which the next timer is due, and fires it.</summary>
    /// <returns>How much time has passed.</returns>
    /// <exception cref="InvalidOperationException">No timer is armed.</exception>
    public TimeSpan AdvanceToNextTimer()
    {
        TimeSpan span = NextDue ?? throw new InvalidOperationException("No timer is armed.");
        Advance(span);
        return span;
    }

    /// <summary>Waits until a timer is armed that is due in exactly the given span from the clock's present time.</summary>
    /// <remarks>For code that arms its timers on another thread: what it waits for is there once this completes, and can be advanced to.</remarks>
    /// <param name="dueIn">The span.</param>
    /// <param name="cancellationToken">Ends the waiting.</param>
    public Task WaitForTimerAsync(TimeSpan dueIn, CancellationToken cancellationToken = default)
    {
        lock (_gate)
        {
            if (_armed.Exists(timer => timer.Due - _now == dueIn.Ticks))
            {
                return Task.CompletedTask;
            }

            Waiter waiter = new(dueIn.Ticks, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously));
            _waiters.Add(waiter);
            return waiter.Armed.Task.WaitAsync(cancellationToken);
        }
    }

    /// <inheritdoc/>
    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        ArgumentNullException.ThrowIfNull(callback);
        ExecutionContext context = ExecutionContext.Capture() ?? s_empty;
        if (TimerMade is { } made)
        {
            ExecutionContext.Run(context, _ => made(callback), state: null);
        }

        ManualTimer timer = new(this, context, callback, state);
        timer.Change(dueTime, period);
        return timer;
    }

    private static ExecutionContext CaptureEmpty()
    {
        ExecutionContext? empty = null;
        Thread thread = new(() => empty = ExecutionContext.Capture());
        thread.UnsafeStart();
        thread.Join();
        return empty!;
    }

    private ManualTimer? TakeDue(long target)
    {
        lock (_gate)
        {
            if (Earliest() is { } timer && timer.Due <= target)
            {
                _now = Math.Max(_now, timer.Due);
                _armed.Remove(timer);
                if (timer.Period > 0)
                {
                    Arm(timer, timer.Due + timer.Period);
                }

                return timer;
            }

            _now = Math.Max(_now, target);
            return null;
        }
    }

    private ManualTimer? Earliest() => _armed.Count == 0 ? null : _armed.MinBy(timer => (timer.Due, timer.Sequence));

    private void Arm(ManualTimer timer, long due)
    {
        timer.Due = due;
        timer.Sequence = _sequence++;
        _armed.Add(timer);
        _waiters.RemoveAll(waiter => waiter.DueIn == due - _now && waiter.Armed.TrySetResult());
    }

    private sealed record Waiter(long DueIn, TaskCompletionSource Armed);

    private sealed class ManualTimer(ManualTimeProvider clock, ExecutionContext context, TimerCallback callback, object? state) : ITimer
    {
        private bool _disposed;

        public long Due { get; set; }

        public long Period { get; private set; }

        public long Sequence { get; set; }

        public void Fire() => ExecutionContext.Run(context, callback.Invoke, state);

        public bool Change(TimeSpan dueTime, TimeSpan period)
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(dueTime, Timeout.InfiniteTimeSpan);
            ArgumentOutOfRangeException.ThrowIfLessThan(period, Timeout.InfiniteTimeSpan);
            lock (clock._gate)
            {
                if (_disposed)
                {
                    return false;
                }

                clock._armed.Remove(this);
                Period = period == Timeout.InfiniteTimeSpan ? 0 : period.Ticks;
                if (dueTime != Timeout.InfiniteTimeSpan)
                {
                    clock.Arm(this, clock._now + dueTime.Ticks);
                }

                return true;
            }
        }

        public void Dispose()
        {
            lock (clock._gate)
            {
                _disposed = true;
                clock._armed.Remove(this);
            }
        }

        public ValueTask DisposeAsync()
        {
            Dispose();
            return ValueTask.CompletedTask;
        }
    }
}

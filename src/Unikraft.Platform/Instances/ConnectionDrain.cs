namespace Unikraft.Platform.Instances;

/// <summary>A stop that waits for connections to end. Guarded by the lock of the instance.</summary>
/// <param name="time">The clock.</param>
/// <param name="onElapsed">Called when the time is up. Not under the lock.</param>
internal sealed class ConnectionDrain(TimeProvider time, Action onElapsed) : IDisposable
{
    private readonly long _origin = time.GetTimestamp();
    private TimeSpan _endsAt = TimeSpan.MaxValue;
    private ITimer? _timer;

    /// <summary>The grace period of the stop that follows.</summary>
    public TimeSpan GracePeriod { get; private set; } = TimeSpan.MaxValue;

    /// <summary>Sets the time, or shortens it.</summary>
    public void Limit(TimeSpan timeout, TimeSpan gracePeriod)
    {
        GracePeriod = Shorter(GracePeriod, gracePeriod);
        TimeSpan endsAt = time.GetElapsedTime(_origin) + timeout;
        if (endsAt < _endsAt)
        {
            _endsAt = endsAt;
            _timer?.Dispose();
            _timer = time.CreateDetachedTimer(_ => onElapsed(), state: null, Durations.ForTimer(timeout), Timeout.InfiniteTimeSpan);
        }
    }

    public void Dispose() => _timer?.Dispose();

    private static TimeSpan Shorter(TimeSpan one, TimeSpan other) => (one, other) switch
    {
        _ when one == TimeSpan.MaxValue || one == Timeout.InfiniteTimeSpan => other,
        _ when other == Timeout.InfiniteTimeSpan => one,
        _ => one < other ? one : other,
    };
}

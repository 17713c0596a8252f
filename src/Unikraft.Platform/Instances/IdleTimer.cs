namespace Unikraft.Platform.Instances;

/// <summary>Notices that an instance has had no connection for its cooldown time. Guarded by the lock of the instance.</summary>
/// <param name="time">The clock.</param>
/// <param name="onIdle">Called then, with the run that was idle. Not under the lock.</param>
internal sealed class IdleTimer(TimeProvider time, Action<InstanceRun> onIdle) : IDisposable
{
    private ITimer? _timer;

    /// <summary>Begins to count, or stops counting.</summary>
    /// <param name="run">The run that is idle; <see langword="null"/> when none is.</param>
    /// <param name="cooldown">The cooldown; <see langword="null"/> when nothing is to be noticed.</param>
    public void Set(InstanceRun? run, TimeSpan? cooldown)
    {
        _timer?.Dispose();
        _timer = null;
        if (run is not null && cooldown is { } due)
        {
            _timer = time.CreateDetachedTimer(_ => onIdle(run), state: null, Durations.ForTimer(due), Timeout.InfiniteTimeSpan);
        }
    }

    public void Dispose() => _timer?.Dispose();
}

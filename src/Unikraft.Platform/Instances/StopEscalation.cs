using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Instances;

/// <summary>A regular stop: ask the guest; after the grace period let its kernel kill the app; if even that does not help, kill the machine.</summary>
internal sealed class StopEscalation : IDisposable
{
    /// <summary>How long the guest's kernel has for killing the app.</summary>
    public static readonly TimeSpan KernelTime = TimeSpan.FromSeconds(2);

    private readonly IVirtualMachine _machine;
    private readonly TimeProvider _timeProvider;
    private readonly Action<bool> _onEscalated;
    private readonly Lock _lock = new();
    private readonly long _origin;
    private ITimer? _timer;
    private TimeSpan _killAppAt = TimeSpan.MaxValue;
    private bool _appKilled;
    private bool _disposed;

    /// <param name="machine">The machine to stop.</param>
    /// <param name="timeProvider">The clock.</param>
    /// <param name="onEscalated">Hears that the app is killed (false) or the whole machine (true).</param>
    public StopEscalation(IVirtualMachine machine, TimeProvider timeProvider, Action<bool> onEscalated)
    {
        _machine = machine;
        _timeProvider = timeProvider;
        _onEscalated = onEscalated;
        _origin = timeProvider.GetTimestamp();
    }

    /// <summary>Begins, or shortens the grace period of a stop that has begun.</summary>
    public void Begin(TimeSpan gracePeriod)
    {
        _machine.RequestStop();
        if (gracePeriod == TimeSpan.Zero)
        {
            KillApp();
            return;
        }

        lock (_lock)
        {
            if (_disposed || _appKilled || gracePeriod == Timeout.InfiniteTimeSpan)
            {
                return;
            }

            TimeSpan killAppAt = _timeProvider.GetElapsedTime(_origin) + gracePeriod;
            if (killAppAt < _killAppAt)
            {
                _killAppAt = killAppAt;
                SetTimer(gracePeriod, static self => self.KillApp());
            }
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            _timer?.Dispose();
        }
    }

    private void KillApp()
    {
        lock (_lock)
        {
            if (_disposed || _appKilled)
            {
                return;
            }

            _appKilled = true;
            SetTimer(KernelTime, static self => self.KillMachine());
        }

        _onEscalated(false);
        _machine.KillApp();
    }

    private void KillMachine()
    {
        lock (_lock)
        {
            if (_disposed)
            {
                return;
            }
        }

        _onEscalated(true);
        _machine.Kill();
    }

    private void SetTimer(TimeSpan due, Action<StopEscalation> step)
    {
        _timer?.Dispose();
        _timer = _timeProvider.CreateDetachedTimer(_ => step(this), state: null, due, Timeout.InfiniteTimeSpan);
    }
}

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>A delay that somebody can end early, because what it holds back has become urgent.</summary>
/// <param name="timeProvider">The clock.</param>
internal sealed class InterruptibleDelay(TimeProvider timeProvider)
{
    private readonly Lock _lock = new();

    /// <summary>Ends the delay; <see langword="null"/> when there is none. Guarded by the lock.</summary>
    private CancellationTokenSource? _ending;

    /// <summary>Whether the delay was ended, perhaps before anybody waited for it. Guarded by the lock.</summary>
    private bool _isEnded;

    /// <summary>A delay begins: from now on it can be ended, also while whoever is to wait for it has yet to get a processor.</summary>
    internal void Begin()
    {
        lock (_lock)
        {
            _isEnded = false;
        }
    }

    /// <summary>Waits until the delay that has begun is over, was ended or is cancelled: the caller looks which.</summary>
    /// <param name="delay">How long.</param>
    /// <param name="cancellationToken">Cancels it.</param>
    internal async Task WaitAsync(TimeSpan delay, CancellationToken cancellationToken)
    {
        using CancellationTokenSource ending = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        lock (_lock)
        {
            if (_isEnded)
            {
                return;
            }

            _ending = ending;
        }

        await Task.Delay(delay, timeProvider, ending.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        lock (_lock)
        {
            _ending = null;
        }
    }

    /// <summary>Ends the delay, if there is one.</summary>
    internal void End()
    {
        lock (_lock)
        {
            _isEnded = true;

            // On a thread of its own: whoever cancels at once goes on with what was waiting.
            _ = _ending?.CancelAsync();
            _ending = null;
        }
    }
}

namespace Unikraft.Platform;

/// <summary>Lets disposal wait for the operations that have begun, and refuses those that come later.</summary>
internal sealed class Rundown : IDisposable
{
    private readonly Lock _lock = new();
    private readonly CancellationTokenSource _closing = new();
    private readonly TaskCompletionSource _drained = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _running;
    private bool _closed;

    public Rundown() => Closing = _closing.Token;

    /// <summary>Cancelled when disposal has begun: what still runs should give up.</summary>
    public CancellationToken Closing { get; }

    public Scope Enter() => TryEnter() ?? throw new ObjectDisposedException(nameof(IUnikraftPlatform));

    public Scope? TryEnter()
    {
        lock (_lock)
        {
            if (_closed)
            {
                return null;
            }

            _running++;
            return new Scope(Leave);
        }
    }

    public void ThrowIfClosed() => ObjectDisposedException.ThrowIf(Closing.IsCancellationRequested, typeof(IUnikraftPlatform));

    /// <summary>Refuses new operations, cancels the running ones and waits for their end.</summary>
    public async Task CloseAsync()
    {
        lock (_lock)
        {
            _closed = true;
            if (_running == 0)
            {
                _drained.TrySetResult();
            }
        }

        await _closing.CancelAsync().ConfigureAwait(false);
        await _drained.Task.ConfigureAwait(false);
    }

    public void Dispose() => _closing.Dispose();

    private void Leave()
    {
        lock (_lock)
        {
            if (--_running == 0 && _closed)
            {
                _drained.TrySetResult();
            }
        }
    }

    internal sealed class Scope(Action leave) : IDisposable
    {
        private Action? _leave = leave;

        public void Dispose() => Interlocked.Exchange(ref _leave, null)?.Invoke();
    }
}

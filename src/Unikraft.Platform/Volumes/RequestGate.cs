namespace Unikraft.Platform.Volumes;

/// <summary>Lets requests through, or holds new ones back and tells when those under way have ended.</summary>
internal sealed class RequestGate
{
    private const long Held = 1L << 62;

    private readonly Lock _lock = new();
    private long _state;
    private TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private TaskCompletionSource _drained = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Whether nobody is let through and nobody is under way.</summary>
    internal bool IsClear => Volatile.Read(ref _state) == Held;

    /// <summary>A request begins, unless requests are held back.</summary>
    internal bool TryEnter()
    {
        long state = Volatile.Read(ref _state);
        while ((state & Held) == 0)
        {
            long seen = Interlocked.CompareExchange(ref _state, state + 1, state);
            if (seen == state)
            {
                return true;
            }

            state = seen;
        }

        return false;
    }

    internal async ValueTask EnterAsync(CancellationToken cancellationToken)
    {
        while (!TryEnter())
        {
            Task released;
            lock (_lock)
            {
                released = (_state & Held) != 0 ? _released.Task : Task.CompletedTask;
            }

            await released.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    internal void Exit()
    {
        if (Interlocked.Decrement(ref _state) == Held)
        {
            lock (_lock)
            {
                if (_state == Held)
                {
                    _ = _drained.TrySetResult();
                }
            }
        }
    }

    /// <summary>Holds new requests back and waits for those under way.</summary>
    /// <exception cref="InvalidOperationException">They are held back already.</exception>
    internal async ValueTask HoldAsync(CancellationToken cancellationToken)
    {
        Task drained;
        lock (_lock)
        {
            if ((_state & Held) != 0)
            {
                throw new InvalidOperationException("The requests are held back already.");
            }

            _released = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _drained = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            drained = _drained.Task;
            if (Interlocked.Or(ref _state, Held) == 0)
            {
                _drained.SetResult();
            }
        }

        try
        {
            await drained.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            Release();
            throw;
        }
    }

    /// <summary>Lets requests through again.</summary>
    internal void Release()
    {
        lock (_lock)
        {
            _ = Interlocked.And(ref _state, ~Held);
            _ = _released.TrySetResult();
        }
    }
}

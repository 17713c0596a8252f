namespace Unikraft.Platform.Instances;

/// <summary>The transitions of one instance or of all, in order, for any number of readers that each go on at their own pace and miss nothing.</summary>
/// <remarks>
/// Each transition leads to the next one, and the log has only the last: what all readers have read, or nobody asks for, is nobody's any more, and its memory is
/// free. A reader that is slow keeps what it has not read, and one that is forgotten costs nothing. Appending never waits, and may be done under the lock of an
/// instance.
/// </remarks>
internal sealed class TransitionLog
{
    private readonly Lock _lock = new();
    private Entry _last = new(transition: null);
    private TaskCompletionSource? _news;
    private bool _isComplete;

    public void Append(InstanceTransition transition)
    {
        lock (_lock)
        {
            _last = _last.Next = new Entry(transition);
            Wake();
        }
    }

    /// <summary>Nothing comes any more: readers end when they have read everything.</summary>
    public void Complete()
    {
        lock (_lock)
        {
            _isComplete = true;
            Wake();
        }
    }

    /// <summary>All transitions from now on, that is, from the moment of this call and not of the first reading.</summary>
    public IAsyncEnumerable<InstanceTransition> ReadAsync(CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            return new Reading(this, _last, cancellationToken);
        }
    }

    // Under the lock.
    private void Wake()
    {
        _news?.TrySetResult();
        _news = null;
    }

    private sealed class Entry(InstanceTransition? transition)
    {
        public InstanceTransition? Transition => transition;

        public Entry? Next { get; set; }
    }

    // Not an iterator: that would keep the entry that it began with for as long as it is read, and with it everything since.
    private sealed class Reading(TransitionLog log, Entry start, CancellationToken cancellationToken) : IAsyncEnumerable<InstanceTransition>
    {
        public IAsyncEnumerator<InstanceTransition> GetAsyncEnumerator(CancellationToken enumeration = default) =>
            new Reader(log, start, cancellationToken, enumeration);
    }

    private sealed class Reader(TransitionLog log, Entry start, CancellationToken watching, CancellationToken enumeration)
        : IAsyncEnumerator<InstanceTransition>
    {
        private readonly CancellationTokenSource _either = CancellationTokenSource.CreateLinkedTokenSource(watching, enumeration);
        private Entry _position = start;

        public InstanceTransition Current { get; private set; } = null!;

        public async ValueTask<bool> MoveNextAsync()
        {
            while (true)
            {
                watching.ThrowIfCancellationRequested();
                enumeration.ThrowIfCancellationRequested();
                Task news;
                lock (log._lock)
                {
                    if (_position.Next is { } next)
                    {
                        _position = next;
                        Current = next.Transition!;
                        return true;
                    }

                    if (log._isComplete)
                    {
                        return false;
                    }

                    log._news ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                    news = log._news.Task;
                }

                await news.WaitAsync(_either.Token).ConfigureAwait(false);
            }
        }

        public ValueTask DisposeAsync()
        {
            _either.Dispose();
            return ValueTask.CompletedTask;
        }
    }
}

using System.Runtime.CompilerServices;

namespace Unikraft.Platform.Instances;

/// <summary>The latest transitions of one instance or of all, in order, for any number of readers that each go on at their own pace.</summary>
/// <remarks>
/// Readers are not known to it, only what they wait for: a reader that is slow or forgotten costs nothing, and one for which the log no longer holds the next
/// transition gets an error. Appending never waits, and may be done under the lock of an instance.
/// </remarks>
/// <param name="capacity">How many transitions are kept.</param>
internal sealed class TransitionLog(int capacity)
{
    /// <summary>How many transitions are kept of one instance.</summary>
    public const int OfOneInstance = 256;

    /// <summary>How many transitions are kept of all instances together.</summary>
    public const int OfAllInstances = 8192;

    private const int InitialLength = 8;

    private readonly Lock _lock = new();
    private InstanceTransition[] _ring = new InstanceTransition[Math.Min(capacity, InitialLength)];
    private TaskCompletionSource? _news;
    private long _next;
    private bool _isComplete;

    private long First => Math.Max(0, _next - _ring.Length);

    public void Append(InstanceTransition transition)
    {
        lock (_lock)
        {
            if (_next == _ring.Length && _ring.Length < capacity)
            {
                Array.Resize(ref _ring, Math.Min(capacity, _ring.Length * 2));
            }

            _ring[_next++ % _ring.Length] = transition;
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
    /// <exception cref="TransitionsMissedException">When read: the reader is more than the capacity behind.</exception>
    public IAsyncEnumerable<InstanceTransition> ReadAsync(CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            return ReadAsync(_next, cancellationToken);
        }
    }

    private async IAsyncEnumerable<InstanceTransition> ReadAsync(long position, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        while (true)
        {
            cancellationToken.ThrowIfCancellationRequested();
            InstanceTransition? transition = null;
            Task news = Task.CompletedTask;
            lock (_lock)
            {
                if (position < First)
                {
                    throw new TransitionsMissedException(First - position);
                }

                if (position < _next)
                {
                    transition = _ring[position % _ring.Length];
                }
                else if (_isComplete)
                {
                    yield break;
                }
                else
                {
                    _news ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                    news = _news.Task;
                }
            }

            if (transition is null)
            {
                await news.WaitAsync(cancellationToken).ConfigureAwait(false);
                continue;
            }

            position++;
            yield return transition;
        }
    }

    // Under the lock.
    private void Wake()
    {
        _news?.TrySetResult();
        _news = null;
    }
}

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>Work that outlives the machine it began with, and not the backend.</summary>
internal sealed class BackgroundWork : IAsyncDisposable
{
    private readonly CancellationTokenSource _closing = new();
    private readonly CancellationToken _closed;
    private readonly Lock _lock = new();
    private readonly HashSet<Task> _running = [];

    /// <summary>Nothing is running yet.</summary>
    internal BackgroundWork() => _closed = _closing.Token;

    /// <summary>Begins some work. It is cancelled from the start when the backend has been closed.</summary>
    /// <param name="work">The work. It handles its errors, and ends soon when it is cancelled.</param>
    internal Task Begin(Func<CancellationToken, Task> work)
    {
        lock (_lock)
        {
            Task task = BeginDetached(() => work(_closed));
            _running.Add(task);
            _ = task.ContinueWith(Forget, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
            return task;
        }
    }

    /// <summary>
    /// Begins some work that outlives the call that has caused it, on another thread: without the context of the caller, whose trace it is no part of, and whose
    /// data it would keep in memory.
    /// </summary>
    internal static Task BeginDetached(Func<Task> work)
    {
        using (ExecutionContext.SuppressFlow())
        {
            return Task.Run(work, CancellationToken.None);
        }
    }

    /// <inheritdoc cref="BeginDetached(Func{Task})"/>
    internal static Task BeginDetached(Action work)
    {
        using (ExecutionContext.SuppressFlow())
        {
            return Task.Run(work, CancellationToken.None);
        }
    }

    /// <summary>Waits for all work that was begun so far.</summary>
    internal Task WhenDone()
    {
        lock (_lock)
        {
            return Task.WhenAll(_running);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _closing.CancelAsync().ConfigureAwait(false);
        await WhenDone().ConfigureAwait(false);
        _closing.Dispose();
    }

    private void Forget(Task task)
    {
        lock (_lock)
        {
            _running.Remove(task);
        }
    }
}

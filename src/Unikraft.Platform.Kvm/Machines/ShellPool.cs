using Microsoft.Extensions.Logging;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>
/// Keeps shells ready for the shapes of machine that were asked for last. Replacements are made one after the other in the background, so that
/// a burst of new machines is not held up by its own replacements.
/// </summary>
/// <param name="device">Where shells are made.</param>
/// <param name="size">How many to keep ready of each shape.</param>
/// <param name="refillDelay">How long to leave the processors to whoever took a shell.</param>
/// <param name="timeProvider">The clock.</param>
/// <param name="logger">Where to log.</param>
internal sealed class ShellPool(KvmDevice device, int size, TimeSpan refillDelay, TimeProvider timeProvider, ILogger logger) : IAsyncDisposable
{
    private const int MaxShapes = 4;

    private readonly CancellationTokenSource _closing = new();
    private readonly Lock _lock = new();

    /// <summary>The shapes, the one asked for last in front.</summary>
    private readonly LinkedList<Shelf> _shelves = [];
    private Task _refilling = Task.CompletedTask;
    private bool _isRefilling;
    private bool _disposed;

    /// <summary>Completes when the pool has what it should have.</summary>
    internal Task Refilled
    {
        get
        {
            lock (_lock)
            {
                return _refilling;
            }
        }
    }

    /// <summary>The number of shells that are ready for a shape.</summary>
    internal int CountReady(MachineShape shape)
    {
        lock (_lock)
        {
            return _shelves.FirstOrDefault(shelf => shelf.Shape == shape)?.Ready.Count ?? 0;
        }
    }

    /// <summary>Takes a shell: a ready one, or one that has just been begun.</summary>
    internal MachineShell Rent(MachineShape shape)
    {
        MachineShell? ready = null;
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (size > 0)
            {
                Shelf shelf = Use(shape);
                shelf.Ready.TryDequeue(out ready);
                BeginRefill();
            }
        }

        return ready ?? MachineShell.Begin(device, shape);
    }

    public async ValueTask DisposeAsync()
    {
        Task refilling;
        lock (_lock)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
            refilling = _refilling;
        }

        await _closing.CancelAsync().ConfigureAwait(false);
        await refilling.ConfigureAwait(false);
        _closing.Dispose();
        foreach (Shelf shelf in _shelves)
        {
            await shelf.DisposeAsync().ConfigureAwait(false);
        }

        _shelves.Clear();
    }

    private Shelf Use(MachineShape shape)
    {
        LinkedListNode<Shelf>? node = _shelves.First;
        while (node is not null && node.Value.Shape != shape)
        {
            node = node.Next;
        }

        if (node is null)
        {
            return _shelves.AddFirst(new Shelf(shape)).Value;
        }

        _shelves.Remove(node);
        _shelves.AddFirst(node);
        return node.Value;
    }

    private void BeginRefill()
    {
        if (!_isRefilling)
        {
            _isRefilling = true;
            _refilling = Task.Run(RefillAsync);
        }
    }

    private async Task RefillAsync()
    {
        try
        {
            await Task.Delay(refillDelay, timeProvider, _closing.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            while (NextTask() is { } task)
            {
                await task().ConfigureAwait(false);
            }
        }
        catch (Exception error)
        {
            // The next machine is made from nothing, and reports what is wrong if it still is.
            Log.RefillFailed(logger, error);
            lock (_lock)
            {
                _isRefilling = false;
            }
        }
    }

    /// <summary>What the pool lacks or has too much of; nothing any more ends the refilling, in the same moment.</summary>
    private Func<Task>? NextTask()
    {
        lock (_lock)
        {
            if (!_disposed && _shelves.Count > MaxShapes)
            {
                Shelf surplus = _shelves.Last!.Value;
                _shelves.RemoveLast();
                return () => surplus.DisposeAsync().AsTask();
            }

            if (!_disposed && _shelves.FirstOrDefault(shelf => shelf.Ready.Count < size) is { } shelf)
            {
                return () => MakeAsync(shelf.Shape);
            }

            _isRefilling = false;
            return null;
        }
    }

    private async Task MakeAsync(MachineShape shape)
    {
        MachineShell shell = MachineShell.Begin(device, shape);
        try
        {
            await shell.AttachAsync().ConfigureAwait(false);
        }
        catch
        {
            await shell.DisposeAsync().ConfigureAwait(false);
            throw;
        }

        await ShelveAsync(shape, shell).ConfigureAwait(false);
    }

    private async Task ShelveAsync(MachineShape shape, MachineShell shell)
    {
        lock (_lock)
        {
            if (!_disposed && _shelves.FirstOrDefault(shelf => shelf.Shape == shape) is { } shelf)
            {
                shelf.Ready.Enqueue(shell);
                return;
            }
        }

        await shell.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>The ready shells of one shape.</summary>
    private sealed class Shelf(MachineShape shape) : IAsyncDisposable
    {
        public MachineShape Shape => shape;

        public Queue<MachineShell> Ready { get; } = [];

        public async ValueTask DisposeAsync()
        {
            while (Ready.TryDequeue(out MachineShell? shell))
            {
                await shell.DisposeAsync().ConfigureAwait(false);
            }
        }
    }
}

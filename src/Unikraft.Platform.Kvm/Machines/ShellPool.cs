using Microsoft.Extensions.Logging;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>
/// Keeps shells ready for the shapes of machine that were asked for last, and, with their memory in place, for the snapshots that are restored again and
/// again. Replacements are made one after the other in the background, so that a burst of new machines is not held up by its own replacements; once it has
/// used up what was ready, it goes on with them.
/// </summary>
/// <param name="device">Where shells are made.</param>
/// <param name="size">How many to keep ready of each shape, and for each snapshot.</param>
/// <param name="refillDelay">How long to leave the processors to whoever took a shell.</param>
/// <param name="reclaimer">Who takes shells that are not needed any more.</param>
/// <param name="timeProvider">The clock.</param>
/// <param name="logger">Where to log.</param>
internal sealed class ShellPool(
    KvmDevice device,
    int size,
    TimeSpan refillDelay,
    Reclaimer reclaimer,
    TimeProvider timeProvider,
    ILogger logger) : IAsyncDisposable
{
    private const int MaxShapes = 4;

    /// <summary>A snapshot that was restored, and again before as many others, is likely to be restored once more.</summary>
    private const int MaxSnapshots = 4;

    private readonly CancellationTokenSource _closing = new();
    private readonly Lock _lock = new();

    /// <summary>Those of shapes and of snapshots, the one asked for last in front.</summary>
    private readonly LinkedList<ShellShelf> _shelves = [];

    /// <summary>The snapshots restored last, the latest in front. The pool does not keep them alive.</summary>
    private readonly LinkedList<WeakReference> _recent = [];
    private readonly InterruptibleDelay _delay = new(timeProvider);
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

    /// <summary>The number of shells that are ready for a shape, or with the memory of a snapshot.</summary>
    internal int CountReady(MachineShape shape, PageMap? memory = null)
    {
        lock (_lock)
        {
            return Find(shelf => shelf.IsFor(shape, memory))?.Ready.Count ?? 0;
        }
    }

    /// <summary>Takes a shell: a ready one, or one that has just been begun.</summary>
    /// <param name="shape">The shape.</param>
    /// <param name="memory">
    /// The snapshot that will be installed in its memory, which may have been prepared for that; <see langword="null"/> for memory that is all zero.
    /// </param>
    internal MachineShell Rent(MachineShape shape, PageMap? memory = null)
    {
        MachineShell? ready = null;
        ShellShelf? superseded = null;
        ShellShelf? used = null;
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (size > 0)
            {
                ready = memory is null ? null : RentPrepared(shape, memory, out superseded, out used);
                bool isUsedUp = false;
                if (ready is null)
                {
                    isUsedUp = Find(shelf => shelf.IsFor(shape, memory: null)) is { Ready.Count: 0 };
                    Use(shape, memory: null, size).Ready.TryDequeue(out ready);
                }

                BeginRefill(isUsedUp);
            }
        }

        // Outside of the lock, for these may end the last use of a snapshot, of which the pool is told.
        if (memory is not null)
        {
            used?.Renew(memory);
            memory.ReleaseParent();
        }

        Discard(superseded);
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
        foreach (ShellShelf shelf in TakeAll())
        {
            shelf.Close();
            await shelf.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <param name="shape">The shape.</param>
    /// <param name="memory">The snapshot.</param>
    /// <param name="superseded">A shelf that is not needed any more.</param>
    /// <param name="used">The shelf that goes on with the snapshot.</param>
    private MachineShell? RentPrepared(MachineShape shape, PageMap memory, out ShellShelf? superseded, out ShellShelf? used)
    {
        (superseded, used) = (null, null);
        MachineShell? ready = null;
        ShellShelf? shelf = Find(shelf => shelf.IsFor(shape, memory) && shelf.Ready.Count > 0);
        if (shelf is null)
        {
            shelf = Find(shelf => shelf.Shape == shape && shelf.Memory is { } below && shelf.Ready.Count > 0 && memory.GetDifference(below.Identity) is not null);
            if (shelf is { Target: 1 })
            {
                // It was there for this one.
                _shelves.Remove(shelf);
                superseded = shelf;
            }
        }

        shelf?.Ready.TryDequeue(out ready);
        if (IsRecent(memory.Identity))
        {
            used = Use(shape, memory, size);
        }
        else if (memory.ParentIdentity is { } parent && IsRecent(parent))
        {
            // Not for this one again, but for the next in its line.
            used = Use(shape, memory, target: 1);
        }

        NoteRestored(memory.Identity);
        return ready;
    }

    private bool IsRecent(object snapshot) => _recent.Any(recent => recent.Target == snapshot);

    private void NoteRestored(object snapshot)
    {
        LinkedListNode<WeakReference>? node = _recent.First;
        while (node is not null && node.Value.Target != snapshot)
        {
            node = node.Next;
        }

        if (node is not null)
        {
            _recent.Remove(node);
        }
        else if (_recent.Count == MaxSnapshots)
        {
            node = _recent.Last!;
            node.Value = new WeakReference(snapshot);
            _recent.RemoveLast();
        }

        _recent.AddFirst(node ?? new LinkedListNode<WeakReference>(new WeakReference(snapshot)));
    }

    private ShellShelf? Find(Func<ShellShelf, bool> condition) => _shelves.FirstOrDefault(condition);

    private ShellShelf Use(MachineShape shape, PageMap? memory, int target)
    {
        ShellShelf? shelf = Find(shelf => shelf.IsFor(shape, memory));
        if (shelf is null)
        {
            shelf = new ShellShelf(shape, memory, Drop);
        }
        else
        {
            _shelves.Remove(shelf);
        }

        shelf.Target = Math.Max(shelf.Target, target);
        _shelves.AddFirst(shelf);
        return shelf;
    }

    /// <summary>Forgets a snapshot that nobody uses any more: nothing of it is held when this returns, but by the mappings of the shells.</summary>
    private void Drop(ShellShelf shelf)
    {
        bool isMine;
        lock (_lock)
        {
            isMine = _shelves.Remove(shelf);
        }

        // Whoever took the shelf from the list before also takes care of its shells.
        shelf.Close();
        Discard(isMine ? shelf : null);
    }

    private void Discard(ShellShelf? shelf)
    {
        if (shelf is not null)
        {
            shelf.Close();
            _ = reclaimer.TakeAsync(shelf.DisposeAsync).AsTask();
        }
    }

    private List<ShellShelf> TakeAll()
    {
        lock (_lock)
        {
            List<ShellShelf> all = [.. _shelves];
            _shelves.Clear();
            return all;
        }
    }

    /// <summary>Begins to make what is missing: at once for somebody who found none, since whoever comes next would find none either.</summary>
    private void BeginRefill(bool isUsedUp)
    {
        if (!_isRefilling)
        {
            _isRefilling = true;
            _delay.Begin();
            _refilling = BackgroundWork.BeginDetached(() => RefillAsync(isUsedUp ? TimeSpan.Zero : refillDelay));
        }
        else if (isUsedUp)
        {
            _delay.End();
        }
    }

    private async Task RefillAsync(TimeSpan delay)
    {
        try
        {
            await _delay.WaitAsync(delay, _closing.Token).ConfigureAwait(false);
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
            if (!_disposed && (FindSurplus(isOfSnapshots: false, MaxShapes) ?? FindSurplus(isOfSnapshots: true, MaxSnapshots)) is { } surplus)
            {
                _shelves.Remove(surplus);
                return () => EndAsync(surplus);
            }

            if (!_disposed && Find(shelf => shelf.Ready.Count < shelf.Target) is { } shelf)
            {
                return () => MakeAsync(shelf);
            }

            _isRefilling = false;
            return null;
        }
    }

    private ShellShelf? FindSurplus(bool isOfSnapshots, int max) =>
        _shelves.Where(shelf => shelf.Memory is not null == isOfSnapshots).Skip(max).FirstOrDefault();

    private static async Task EndAsync(ShellShelf shelf)
    {
        shelf.Close();
        await shelf.DisposeAsync().ConfigureAwait(false);
    }

    private async Task MakeAsync(ShellShelf shelf)
    {
        MachineShell shell = MachineShell.Begin(device, shelf.Shape);
        try
        {
            await shell.AttachAsync().ConfigureAwait(false);
            shelf.Prepare(shell.Memory);
        }
        catch
        {
            await shell.DisposeAsync().ConfigureAwait(false);
            throw;
        }

        lock (_lock)
        {
            if (!_disposed && _shelves.Contains(shelf))
            {
                shelf.Ready.Enqueue(shell);
                return;
            }
        }

        await shell.DisposeAsync().ConfigureAwait(false);
    }
}

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// What a page map and its folded forms have in common: the bytes that they stand for, who uses them, and how they differ from those of the map below.
/// </summary>
internal sealed class PageMapIdentity
{
    /// <summary>Each is written to, and costs a fault.</summary>
    private const int MaxZeroes = 64;

    private readonly WeakReference? _parent;
    private readonly PageBitmap? _changed;
    private readonly PageBitmap? _zero;
    private readonly Lock _lock = new();

    /// <summary>Who wants to know when the last use ends. Guarded by the lock.</summary>
    private Action? _watchers;
    private PageMap? _kept;
    private int _uses;

    /// <summary>That of a map that has nothing to do with others.</summary>
    internal PageMapIdentity()
    {
    }

    /// <summary>That of a map that was made from another one by one overlay.</summary>
    /// <param name="parent">The other one.</param>
    /// <param name="below">The identity of that.</param>
    /// <param name="changed">The pages that the overlay brings.</param>
    /// <param name="zero">The pages that it makes zero.</param>
    internal PageMapIdentity(PageMap parent, PageMapIdentity below, PageBitmap changed, PageBitmap zero)
    {
        _parent = new WeakReference(below);
        _changed = changed;
        _zero = zero;

        // What is ready for the parent is ready for the first machine from this map: for one generation, so that no chain of them lives on.
        below.ReleaseParent();
        _kept = below.IsWatched ? parent.Share() : null;
    }

    internal object? Parent => _parent?.Target;

    private bool IsWatched
    {
        get
        {
            lock (_lock)
            {
                return _watchers is not null;
            }
        }
    }

    internal void AddWatcher(Action watcher)
    {
        lock (_lock)
        {
            _watchers += watcher;
        }
    }

    internal void RemoveWatcher(Action watcher)
    {
        lock (_lock)
        {
            _watchers -= watcher;
        }
    }

    internal void BeginUse() => Interlocked.Increment(ref _uses);

    internal void EndUse()
    {
        if (Interlocked.Decrement(ref _uses) == 0)
        {
            ReleaseParent();
            Action? watchers;
            lock (_lock)
            {
                watchers = _watchers;
            }

            watchers?.Invoke();
        }
    }

    internal void ReleaseParent() => Interlocked.Exchange(ref _kept, null)?.Dispose();

    /// <summary>Finds where the pages come from that the map below has not.</summary>
    /// <param name="extents">The extents of one of the forms of the map.</param>
    /// <returns><see langword="null"/> when there is no map below, or so many pages became zero that it is not worth knowing.</returns>
    internal MapDifference? FindDifference(ReadOnlySpan<PageExtent> extents)
    {
        if (_changed is null || _zero is null || _zero.Count() is var zeroes && zeroes > MaxZeroes)
        {
            return null;
        }

        List<PageExtent> found = [];
        int next = 0;
        for (int from = 0; _changed.NextRun(from, out int start, out int length); from = start + length)
        {
            while (extents[next].End <= start)
            {
                next++;
            }

            int end = start + length;
            for (int page = start; page < end; page = found[^1].End)
            {
                next += extents[next].End == page ? 1 : 0;
                found.Add(new PageExtent(page, Math.Min(extents[next].End, end) - page, extents[next].Layer));
            }
        }

        return new MapDifference([.. found], zeroes == 0 ? null : _zero);
    }
}

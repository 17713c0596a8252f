using CommunityToolkit.HighPerformance.Buffers;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// Where every page of a snapshot comes from: a chain of layers, flattened. Immutable; holds its layers.
/// </summary>
internal sealed class PageMap : IDisposable
{
    private readonly Content _content;
    private readonly bool _isUse;
    private int _disposed;

    private PageMap(Content content, long ownBytes, int depth, bool isUse = true)
    {
        _content = content;
        _isUse = isUse;
        OwnBytes = ownBytes;
        Depth = depth;
        int held = 0;
        try
        {
            for (; held < content.Layers.Length; held++)
            {
                content.Layers[held].AddReference();
            }
        }
        catch
        {
            Release(content.Layers.AsSpan(0, held));
            content.ReleaseParent();
            throw;
        }

        if (isUse)
        {
            content.BeginUse();
        }
    }

    /// <summary>The layers that pages come from, each once.</summary>
    internal IReadOnlyList<MemoryLayer> Layers => _content.Layers;

    /// <summary>The extents, by ascending page, without overlap. A page in none of them is zero.</summary>
    internal ReadOnlySpan<PageExtent> Extents => _content.Extents;

    /// <summary>For each extent, the number of its layer in <see cref="Layers"/>.</summary>
    internal ReadOnlySpan<int> LayerNumbers => _content.LayerNumbers;

    /// <summary>How to load it, with as many mappings as are worth it.</summary>
    internal LoadPlan Plan => _content.Plan;

    /// <summary>Bytes stored by the newest layer.</summary>
    internal long OwnBytes { get; }

    /// <summary>The number of snapshots this one builds on, itself included.</summary>
    internal int Depth { get; }

    /// <summary>What all holders of the map have in common, and no other map has.</summary>
    internal object Identity => _content;

    /// <summary>The <see cref="Identity"/> of the map that this one was made from by one overlay, as long as there is one.</summary>
    internal object? ParentIdentity => _content.Parent;

    /// <summary>Makes a map that was stored.</summary>
    /// <param name="extents">The extents, by ascending page, without overlap. The map takes its own references to their layers.</param>
    /// <param name="ownBytes">Bytes stored by the newest layer.</param>
    /// <param name="depth">The number of snapshots it builds on, itself included.</param>
    internal static PageMap Load(PageExtent[] extents, long ownBytes, int depth)
    {
        using PageMapBuilder built = PageMapBuilder.Of(extents);
        return new PageMap(new Content(built), ownBytes, depth);
    }

    /// <summary>Puts a layer on top of a map.</summary>
    /// <param name="parent">The map; <see langword="null"/> for memory that is all zero.</param>
    /// <param name="layer">The layer. The new map takes its own reference.</param>
    /// <param name="stored">The pages that the layer holds.</param>
    /// <param name="zero">The pages that are zero from now on.</param>
    internal static PageMap Overlay(PageMap? parent, MemoryLayer layer, PageBitmap stored, PageBitmap zero)
    {
        using PageMapBuilder merged = new(parent);
        int position = 0;
        bool hasStored = stored.NextRun(position, out int storedStart, out int storedLength);
        bool hasZero = zero.NextRun(position, out int zeroStart, out int zeroLength);
        while (hasStored || hasZero)
        {
            if (hasStored && (!hasZero || storedStart < zeroStart))
            {
                merged.AddParent(position, storedStart);
                merged.Add(storedStart, storedLength, layer);
                position = storedStart + storedLength;
                hasStored = stored.NextRun(position, out storedStart, out storedLength);
            }
            else
            {
                merged.AddParent(position, zeroStart);
                position = zeroStart + zeroLength;
                hasZero = zero.NextRun(position, out zeroStart, out zeroLength);
            }
        }

        merged.AddParent(position, stored.Pages);
        Content content = parent is null ? new Content(merged) : new Content(merged, parent, layer, zero);
        return new PageMap(content, layer.StoredBytes, (parent?.Depth ?? 0) + 1);
    }

    /// <summary>Copies everything into one layer, so that it lies together again.</summary>
    /// <param name="pages">The number of pages of the guest.</param>
    internal PageMap Fold(int pages)
    {
        const int BufferPages = 256;
        using LayerWriter writer = new(pages);
        using SpanOwner<byte> buffer = SpanOwner<byte>.Allocate(BufferPages << PageSize.Shift);
        foreach (PageExtent extent in Extents)
        {
            for (int page = extent.Start; page < extent.End; page += BufferPages)
            {
                int count = Math.Min(BufferPages, extent.End - page);
                Span<byte> content = buffer.Span[..(count << PageSize.Shift)];
                extent.Layer.Read(content, (long)page << PageSize.Shift);
                writer.Store(page, content);
            }
        }

        PageMap folded = writer.Seal(parent: null);
        folded.Extents[0].Layer.Origin = FoldOrigin.Of(this);
        return folded;
    }

    /// <summary>Makes the same map on top of a folded ancestor.</summary>
    /// <param name="ancestor">This map, or one that it was made from by overlays.</param>
    /// <param name="folded">The fold of that.</param>
    internal PageMap Rebase(PageMap ancestor, PageMap folded)
    {
        // A page that still comes from a layer of the ancestor is as the ancestor had it, and the fold has it at the same place.
        MemoryLayer layer = folded.Extents[0].Layer;
        HashSet<MemoryLayer> ancestors = [.. ancestor.Layers];
        MemoryLayer[] rebasedTo = [.. Layers.Select(own => ancestors.Contains(own) ? layer : own)];
        using PageMapBuilder rebased = new(parent: null);
        ReadOnlySpan<int> numbers = LayerNumbers;
        for (int i = 0; i < numbers.Length; i++)
        {
            rebased.Add(Extents[i].Start, Extents[i].Length, rebasedTo[numbers[i]]);
        }

        return new PageMap(new Content(rebased), OwnBytes, Depth);
    }

    /// <summary>Another holder of the same map.</summary>
    /// <exception cref="ObjectDisposedException">The map was disposed of, even if others still hold its layers.</exception>
    internal PageMap Share()
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
        return new PageMap(_content, OwnBytes, Depth);
    }

    /// <summary>A holder of the same map that does not count as a use of it.</summary>
    /// <param name="unused">Told, on the thread of whoever ends it, when the last use has ended; it should dispose of the holder then.</param>
    internal PageMap Watch(Action unused)
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
        PageMap watcher = new(_content, OwnBytes, Depth, isUse: false);
        _content.AddWatcher(unused);
        return watcher;
    }

    /// <summary>Ends what <see cref="Watch"/> began.</summary>
    internal void Unwatch(Action unused)
    {
        _content.RemoveWatcher(unused);
        Dispose();
    }

    /// <summary>Lets go of the map below, which was kept because a machine was prepared for it.</summary>
    internal void ReleaseParent() => _content.ReleaseParent();

    /// <summary>How the map differs from one that it was made from by one overlay.</summary>
    /// <param name="parent">The <see cref="Identity"/> of that map.</param>
    /// <returns><see langword="null"/> when it was not, or differs by so many zeroes that it is not worth knowing.</returns>
    internal MapDifference? GetDifference(object parent) => _content.GetDifference(parent);

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            // The watchers let go first: with the layers of the last use nothing of the map is left then.
            if (_isUse)
            {
                _content.EndUse();
            }

            Release(_content.Layers);
        }
    }

    private static void Release(ReadOnlySpan<MemoryLayer> layers)
    {
        foreach (MemoryLayer layer in layers)
        {
            layer.Release();
        }
    }

    /// <summary>What all holders of a map share.</summary>
    private sealed class Content
    {
        /// <summary>Each is written to, and costs a fault.</summary>
        private const int MaxZeroes = 64;

        private readonly WeakReference? _parent;
        private readonly MemoryLayer? _top;
        private readonly PageBitmap? _zero;
        private readonly Lazy<LoadPlan> _plan;
        private readonly Lazy<MapDifference?> _difference;
        private readonly Lock _lock = new();

        /// <summary>Who wants to know when the last use ends. Guarded by the lock.</summary>
        private Action? _watchers;
        private PageMap? _kept;
        private int _uses;

        internal Content(PageMapBuilder built)
        {
            PageExtent[] extents = Extents = [.. built.Extents];
            LayerNumbers = [.. built.LayerNumbers];
            Layers = [.. built.Layers];
            _plan = new Lazy<LoadPlan>(() => LoadPlan.Make(extents, GuestMemory.MapThreshold));
            _difference = new Lazy<MapDifference?>(FindDifference);
        }

        internal Content(PageMapBuilder built, PageMap parent, MemoryLayer top, PageBitmap zero)
            : this(built)
        {
            Content below = parent._content;
            _parent = new WeakReference(below);
            _top = top;
            _zero = zero;

            // What is ready for the parent is ready for the first machine from this map: for one generation, so that no chain of them lives on.
            below.ReleaseParent();
            _kept = below.IsWatched ? parent.Share() : null;
        }

        internal PageExtent[] Extents { get; }

        internal int[] LayerNumbers { get; }

        internal MemoryLayer[] Layers { get; }

        internal LoadPlan Plan => _plan.Value;

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

        internal MapDifference? GetDifference(object parent) => Parent == parent ? _difference.Value : null;

        private MapDifference? FindDifference()
        {
            int zeroes = _zero!.Count();
            return zeroes > MaxZeroes
                ? null
                : new MapDifference([.. Extents.Where(extent => extent.Layer == _top)], zeroes == 0 ? null : _zero);
        }
    }
}

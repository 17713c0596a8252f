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
            content.Identity.ReleaseParent();
            throw;
        }

        if (isUse)
        {
            content.Identity.BeginUse();
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

    /// <summary>What all holders of the map and of its folded forms have in common, and nobody else has: memory that one of them is in place in is ready for the others.</summary>
    internal object Identity => _content.Identity;

    /// <summary>The <see cref="Identity"/> of the map that this one was made from by one overlay, as long as there is one.</summary>
    internal object? ParentIdentity => _content.Identity.Parent;

    /// <summary>Makes a map that was stored.</summary>
    /// <param name="extents">The extents, by ascending page, without overlap. The map takes its own references to their layers.</param>
    /// <param name="ownBytes">Bytes stored by the newest layer.</param>
    /// <param name="depth">The number of snapshots it builds on, itself included.</param>
    internal static PageMap Load(PageExtent[] extents, long ownBytes, int depth)
    {
        using PageMapBuilder built = PageMapBuilder.Of(extents);
        return new PageMap(new Content(built, new PageMapIdentity()), ownBytes, depth);
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
        bool isChanged = hasStored || hasZero;
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
        PageMapIdentity identity = (parent, isChanged) switch
        {
            (null, _) => new PageMapIdentity(),

            // Of a guest that did nothing: what is ready for the snapshot before is ready for this one.
            (_, false) => parent._content.Identity,
            _ => new PageMapIdentity(parent, parent._content.Identity, stored, zero),
        };
        return new PageMap(new Content(merged, identity), layer.StoredBytes, (parent?.Depth ?? 0) + 1);
    }

    /// <summary>Copies a part of the memory into one layer, so that it lies together again.</summary>
    /// <param name="pages">The number of pages of the guest.</param>
    /// <param name="from">The first page of the part.</param>
    /// <param name="to">The first page after it.</param>
    /// <returns>A map of that part alone, which must not be all zero.</returns>
    internal PageMap Fold(int pages, int from, int to)
    {
        const int BufferPages = 256;
        using LayerWriter writer = new(pages);
        using SpanOwner<byte> buffer = SpanOwner<byte>.Allocate(BufferPages << PageSize.Shift);
        foreach (PageExtent extent in Within(from, to))
        {
            int end = Math.Min(to, extent.End);
            for (int page = Math.Max(from, extent.Start); page < end; page += BufferPages)
            {
                int count = Math.Min(BufferPages, end - page);
                Span<byte> content = buffer.Span[..(count << PageSize.Shift)];
                extent.Layer.Read(content, (long)page << PageSize.Shift);
                writer.Store(page, content);
            }
        }

        PageMap folded = writer.Seal(parent: null);
        folded.Extents[0].Layer.Origin = FoldOrigin.Of(this, from, to);
        return folded;
    }

    /// <summary>Makes the same map on top of a part of an ancestor that was folded.</summary>
    /// <param name="ancestor">This map, or one that it was made from by overlays.</param>
    /// <param name="folded">The fold of the part.</param>
    /// <param name="from">The first page of the part.</param>
    /// <param name="to">The first page after it.</param>
    internal PageMap Rebase(PageMap ancestor, PageMap folded, int from, int to)
    {
        // A page that still comes from a layer of the ancestor is as the ancestor had it, and the fold has it at the same place.
        MemoryLayer layer = folded.Extents[0].Layer;
        HashSet<MemoryLayer> ancestors = [.. ancestor.Layers];
        bool[] isRebased = [.. Layers.Select(ancestors.Contains)];
        using PageMapBuilder rebased = new(this);
        rebased.AddParent(0, from);
        int first = FindExtent(from);
        for (int i = first; i < Extents.Length && Extents[i].Start < to; i++)
        {
            int start = Math.Max(from, Extents[i].Start);
            rebased.Add(start, Math.Min(to, Extents[i].End) - start, isRebased[LayerNumbers[i]] ? layer : Extents[i].Layer);
        }

        rebased.AddParent(to, int.MaxValue);
        return new PageMap(new Content(rebased, _content.Identity), OwnBytes, Depth);
    }

    /// <summary>The extents that some pages come from, the first and the last of which may go beyond them.</summary>
    /// <param name="from">The first page.</param>
    /// <param name="to">The first page after them.</param>
    internal ReadOnlySpan<PageExtent> Within(int from, int to)
    {
        int first = FindExtent(from);
        int count = 0;
        while (first + count < Extents.Length && Extents[first + count].Start < to)
        {
            count++;
        }

        return Extents.Slice(first, count);
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
        _content.Identity.AddWatcher(unused);
        return watcher;
    }

    /// <summary>Whether another holder has the same map, in the same form.</summary>
    internal bool IsSame(PageMap other) => _content == other._content;

    /// <summary>Ends what <see cref="Watch"/> began.</summary>
    internal void Unwatch(Action unused)
    {
        _content.Identity.RemoveWatcher(unused);
        Dispose();
    }

    /// <summary>Lets go of the map below, which was kept because a machine was prepared for it.</summary>
    internal void ReleaseParent() => _content.Identity.ReleaseParent();

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
                _content.Identity.EndUse();
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

    /// <summary>The number of the first extent that ends behind a page.</summary>
    private int FindExtent(int page)
    {
        int low = 0;
        for (int high = Extents.Length; low < high;)
        {
            int middle = (low + high) / 2;
            if (Extents[middle].End <= page)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low;
    }

    /// <summary>What all holders of a map share.</summary>
    private sealed class Content
    {
        private readonly Lazy<LoadPlan> _plan;
        private readonly Lazy<MapDifference?> _difference;

        internal Content(PageMapBuilder built, PageMapIdentity identity)
        {
            PageExtent[] extents = Extents = [.. built.Extents];
            LayerNumbers = [.. built.LayerNumbers];
            Layers = [.. built.Layers];
            Identity = identity;
            _plan = new Lazy<LoadPlan>(() => LoadPlan.Make(extents, GuestMemory.MapThreshold));
            _difference = new Lazy<MapDifference?>(() => identity.FindDifference(extents));
        }

        internal PageExtent[] Extents { get; }

        internal int[] LayerNumbers { get; }

        internal MemoryLayer[] Layers { get; }

        internal PageMapIdentity Identity { get; }

        internal LoadPlan Plan => _plan.Value;

        internal MapDifference? GetDifference(object parent) => Identity.Parent == parent ? _difference.Value : null;
    }
}

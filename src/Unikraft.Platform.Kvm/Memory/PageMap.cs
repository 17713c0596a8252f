using CommunityToolkit.HighPerformance.Buffers;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// Where every page of a snapshot comes from: a chain of layers, flattened. Immutable; holds its layers.
/// </summary>
internal sealed class PageMap : IDisposable
{
    private readonly Content _content;
    private int _disposed;

    private PageMap(Content content, long ownBytes, int depth)
    {
        _content = content;
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
            throw;
        }
    }

    /// <summary>The layers that pages come from.</summary>
    internal IReadOnlyCollection<MemoryLayer> Layers => _content.Layers;

    /// <summary>The extents, by ascending page, without overlap. A page in none of them is zero.</summary>
    internal ReadOnlySpan<PageExtent> Extents => _content.Extents;

    /// <summary>How to load it, with as many mappings as are worth it.</summary>
    internal LoadPlan Plan => _content.Plan.Value;

    /// <summary>Bytes stored by the newest layer.</summary>
    internal long OwnBytes { get; }

    /// <summary>The number of snapshots this one builds on, itself included.</summary>
    internal int Depth { get; }

    /// <summary>Makes a map that was stored.</summary>
    /// <param name="extents">The extents, by ascending page, without overlap. The map takes its own references to their layers.</param>
    /// <param name="ownBytes">Bytes stored by the newest layer.</param>
    /// <param name="depth">The number of snapshots it builds on, itself included.</param>
    internal static PageMap Load(PageExtent[] extents, long ownBytes, int depth) =>
        new(new Content(extents), ownBytes, depth);

    /// <summary>Puts a layer on top of a map.</summary>
    /// <param name="parent">The map; <see langword="null"/> for memory that is all zero.</param>
    /// <param name="layer">The layer. The new map takes its own reference.</param>
    /// <param name="stored">The pages that the layer holds.</param>
    /// <param name="zero">The pages that are zero from now on.</param>
    internal static PageMap Overlay(PageMap? parent, MemoryLayer layer, PageBitmap stored, PageBitmap zero)
    {
        List<PageExtent> merged = [];
        int position = 0;
        while (position < stored.Pages)
        {
            bool hasStored = stored.NextRun(position, out int storedStart, out int storedLength);
            bool hasZero = zero.NextRun(position, out int zeroStart, out int zeroLength);
            if (!hasStored && !hasZero)
            {
                break;
            }

            (int start, int length, MemoryLayer? source) = hasStored && (!hasZero || storedStart < zeroStart)
                ? (storedStart, storedLength, layer)
                : (zeroStart, zeroLength, null);
            AppendParent(merged, parent, position, start);
            if (source is not null)
            {
                Append(merged, start, length, source);
            }

            position = start + length;
        }

        AppendParent(merged, parent, position, stored.Pages);
        return new PageMap(new Content([.. merged]), layer.StoredBytes, (parent?.Depth ?? 0) + 1);
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
        List<PageExtent> rebased = new(Extents.Length);
        foreach (PageExtent extent in Extents)
        {
            Append(rebased, extent.Start, extent.Length, ancestors.Contains(extent.Layer) ? layer : extent.Layer);
        }

        return new PageMap(new Content([.. rebased]), OwnBytes, Depth);
    }

    /// <summary>Another holder of the same map.</summary>
    /// <exception cref="ObjectDisposedException">The map was disposed of, even if others still hold its layers.</exception>
    internal PageMap Share()
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
        return new PageMap(_content, OwnBytes, Depth);
    }

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
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

    private static void AppendParent(List<PageExtent> merged, PageMap? parent, int from, int to)
    {
        if (parent is null || from >= to)
        {
            return;
        }

        for (int i = parent.IndexOfFirstEndingAfter(from); i < parent.Extents.Length && parent.Extents[i].Start < to; i++)
        {
            PageExtent extent = parent.Extents[i];
            int start = Math.Max(extent.Start, from);
            Append(merged, start, Math.Min(extent.End, to) - start, extent.Layer);
        }
    }

    private static void Append(List<PageExtent> merged, int start, int length, MemoryLayer layer)
    {
        while (length > 0)
        {
            int part = length;
            if (merged.Count > 0 && merged[^1] is var last && last.End == start && last.Layer == layer && last.Length < PageExtent.MaxLength)
            {
                part = Math.Min(length, PageExtent.MaxLength - last.Length);
                merged[^1] = last with { Length = last.Length + part };
            }
            else
            {
                part = Math.Min(length, PageExtent.MaxLength);
                merged.Add(new PageExtent(start, part, layer));
            }

            start += part;
            length -= part;
        }
    }

    private int IndexOfFirstEndingAfter(int page)
    {
        int low = 0;
        int high = Extents.Length;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            if (Extents[middle].End > page)
            {
                high = middle;
            }
            else
            {
                low = middle + 1;
            }
        }

        return low;
    }

    /// <summary>What all holders of a map share.</summary>
    private sealed class Content(PageExtent[] extents)
    {
        internal PageExtent[] Extents => extents;

        internal MemoryLayer[] Layers { get; } = [.. extents.Select(static extent => extent.Layer).Distinct()];

        internal Lazy<LoadPlan> Plan { get; } = new(() => LoadPlan.Make(extents, GuestMemory.MapThreshold));
    }
}

using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>What a layer was folded from, by the names of the layers: whoever keeps those on a disk need not keep the fold there as well.</summary>
internal sealed class FoldOrigin
{
    /// <summary>From more layers than that a fold is worth its room: each costs something whenever a snapshot is saved or opened.</summary>
    internal const int MaxLayers = 128;

    private readonly Extent[] _extents;

    private FoldOrigin(Extent[] extents, IReadOnlyList<Source> layers) => (_extents, Layers) = (extents, layers);

    /// <summary>The layers, none of which is a fold with an origin of its own.</summary>
    internal IReadOnlyList<Source> Layers { get; }

    /// <summary>What the fold of a part of a map is made from.</summary>
    /// <param name="map">The map.</param>
    /// <param name="from">The first page of the part.</param>
    /// <param name="to">The first page after it.</param>
    /// <returns><see langword="null"/> when that are too many layers, or some that nobody will save.</returns>
    internal static FoldOrigin? Of(PageMap map, int from, int to)
    {
        Dictionary<Guid, int> numbers = [];
        List<Source> sources = [];

        // Somebody may keep a layer meanwhile, which then is what the fold is made from the next time.
        Dictionary<MemoryLayer, FoldOrigin?> origins = new(ReferenceEqualityComparer.Instance);
        ReadOnlySpan<PageExtent> part = map.Within(from, to);
        foreach (PageExtent extent in part)
        {
            MemoryLayer layer = extent.Layer;
            if (origins.ContainsKey(layer))
            {
                continue;
            }

            if (!layer.KnowsPages)
            {
                return null;
            }

            FoldOrigin? known = layer.Origin;
            origins[layer] = known;
            foreach (Source source in known?.Layers ?? [new Source(layer.Id, layer.GetIndex())])
            {
                if (numbers.TryAdd(source.Id, sources.Count))
                {
                    sources.Add(source);
                }
            }
        }

        if (sources.Count > MaxLayers)
        {
            return null;
        }

        List<Extent> extents = [];
        foreach (PageExtent extent in part)
        {
            int start = Math.Max(from, extent.Start);
            int length = Math.Min(to, extent.End) - start;
            if (origins[extent.Layer] is { } origin)
            {
                foreach (Extent found in origin.Find(start, length))
                {
                    extents.Add(found with { Layer = numbers[origin.Layers[found.Layer].Id] });
                }
            }
            else
            {
                extents.Add(new Extent(start, length, numbers[extent.Layer.Id]));
            }
        }

        return new FoldOrigin([.. extents], [.. sources]);
    }

    /// <summary>The extents, by ascending page.</summary>
    internal ReadOnlySpan<Extent> Extents => _extents;

    /// <summary>Where a run of pages of the fold comes from, by ascending page.</summary>
    private IEnumerable<Extent> Find(int start, int length)
    {
        int end = start + length;
        int low = 0;
        for (int high = _extents.Length; low < high;)
        {
            int middle = (low + high) / 2;
            if (_extents[middle].End <= start)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        for (int i = low; i < _extents.Length && _extents[i].Start < end; i++)
        {
            int first = Math.Max(start, _extents[i].Start);
            yield return new Extent(first, Math.Min(end, _extents[i].End) - first, _extents[i].Layer);
        }
    }

    /// <summary>A layer that pages come from.</summary>
    /// <param name="Id">The layer.</param>
    /// <param name="Index">The pages that it holds.</param>
    internal sealed record Source(Guid Id, PageIndex Index);

    /// <summary>A run of pages of one layer.</summary>
    /// <param name="Start">The first page.</param>
    /// <param name="Length">The number of pages.</param>
    /// <param name="Layer">The number of the layer in <see cref="Layers"/>.</param>
    [StructLayout(LayoutKind.Auto)]
    internal readonly record struct Extent(int Start, int Length, int Layer)
    {
        internal int End => Start + Length;
    }
}

using CommunityToolkit.HighPerformance.Buffers;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>
/// The memory of a snapshot as a state is to have it: from its layers, or in place of a fold that is not kept from the layers that it was made from, which are: what has
/// not changed is not written again.
/// </summary>
internal sealed class MemoryToSave
{
    private MemoryToSave(IReadOnlyList<Part> layers, StoredExtent[] extents) => (Layers, Extents) = (layers, extents);

    /// <summary>The layers that pages come from, each once.</summary>
    internal IReadOnlyList<Part> Layers { get; }

    /// <summary>The extents, by ascending page, with the numbers of their layers in <see cref="Layers"/>.</summary>
    internal StoredExtent[] Extents { get; }

    /// <param name="memory">The memory.</param>
    /// <param name="isKept">Whether a layer is kept.</param>
    internal static MemoryToSave Of(PageMap memory, Func<Guid, bool> isKept)
    {
        Dictionary<Guid, MemoryLayer> present = [];
        foreach (MemoryLayer layer in memory.Layers)
        {
            present.TryAdd(layer.Id, layer);
        }

        List<Part> parts = [];
        Dictionary<Guid, int> numbers = [];
        IReadOnlyList<MemoryLayer> layers = memory.Layers;
        Source[] sources = new Source[layers.Count];
        for (int i = 0; i < sources.Length; i++)
        {
            sources[i] = SourceOf(layers[i]);
        }

        ReadOnlySpan<PageExtent> extents = memory.Extents;
        ReadOnlySpan<int> layerOf = memory.LayerNumbers;

        // Each piece of a fold ends where an extent does, of the fold or of what it was made from.
        using SpanOwner<StoredExtent> buffer = SpanOwner<StoredExtent>.Allocate(
            extents.Length + sources.Sum(static source => source.Origin?.Extents.Length ?? 0));
        Span<StoredExtent> stored = buffer.Span;
        int[] numberOf = [.. sources.Select(static source => source.Number)];
        bool[] isUsed = new bool[parts.Count];
        int count = 0;
        for (int i = 0; i < extents.Length; i++)
        {
            ref readonly PageExtent extent = ref extents[i];
            int number = numberOf[layerOf[i]];
            if (number >= 0)
            {
                stored[count++] = new StoredExtent(extent.Start, extent.Length, number);
                isUsed[number] = true;
            }
            else
            {
                count += sources[layerOf[i]].Unfold(extent, stored[count..], isUsed);
            }
        }

        return WithoutUnused(parts, stored[..count], isUsed);

        Source SourceOf(MemoryLayer layer)
        {
            if (layer.Origin is { } origin && !isKept(layer.Id) && origin.Layers.All(source => present.ContainsKey(source.Id) || isKept(source.Id)))
            {
                return new Source(-1, origin, [.. origin.Layers.Select(source => Add(source.Id, present.GetValueOrDefault(source.Id), source.Index))]);
            }

            if (layer.Origin is not null && isKept(layer.Id))
            {
                // From now on others are told apart from it, and not from what it was made from, which may go.
                layer.Origin = null;
            }

            return new Source(Add(layer.Id, layer, layer.GetIndex()), Origin: null, Numbers: []);
        }

        int Add(Guid id, MemoryLayer? layer, PageIndex index)
        {
            if (numbers.TryAdd(id, parts.Count))
            {
                parts.Add(new Part(id, layer, index));
            }

            return numbers[id];
        }
    }

    /// <summary>A layer of which newer ones have hidden everything is not referred to.</summary>
    private static MemoryToSave WithoutUnused(List<Part> parts, ReadOnlySpan<StoredExtent> extents, bool[] isUsed)
    {
        List<Part> used = [];
        int[] renumbered = new int[parts.Count];
        for (int i = 0; i < parts.Count; i++)
        {
            renumbered[i] = used.Count;
            if (isUsed[i])
            {
                used.Add(parts[i]);
            }
        }

        StoredExtent[] result = GC.AllocateUninitializedArray<StoredExtent>(extents.Length);
        extents.CopyTo(result);
        for (int i = 0; i < result.Length && used.Count < parts.Count; i++)
        {
            result[i] = result[i] with { Layer = renumbered[result[i].Layer] };
        }

        return new MemoryToSave(used, result);
    }

    /// <summary>A layer.</summary>
    /// <param name="Id">The layer.</param>
    /// <param name="Layer">What is in memory of it; <see langword="null"/> when it is only kept.</param>
    /// <param name="Index">The pages that it holds.</param>
    internal sealed record Part(Guid Id, MemoryLayer? Layer, PageIndex Index);

    /// <summary>What stands for a layer in memory: one part, or those that it was folded from.</summary>
    private sealed record Source(int Number, FoldOrigin? Origin, int[] Numbers)
    {
        private int _next;

        /// <summary>Finds where a run of pages comes from. Runs are asked for by ascending page.</summary>
        /// <param name="extent">The run.</param>
        /// <param name="extents">Where to put what is found.</param>
        /// <param name="isUsed">Which parts were found; added to.</param>
        /// <returns>The number of extents.</returns>
        internal int Unfold(in PageExtent extent, Span<StoredExtent> extents, bool[] isUsed)
        {
            (int start, int end, int next, int count) = (extent.Start, extent.End, _next, 0);
            int[] numbers = Numbers;
            ReadOnlySpan<FoldOrigin.Extent> origins = Origin!.Extents;
            while (next < origins.Length && origins[next].End <= start)
            {
                next++;
            }

            _next = next;
            for (; next < origins.Length; next++)
            {
                ref readonly FoldOrigin.Extent origin = ref origins[next];
                if (origin.Start >= end)
                {
                    break;
                }

                int first = Math.Max(start, origin.Start);
                int number = numbers[origin.Layer];
                extents[count++] = new StoredExtent(first, Math.Min(end, origin.End) - first, number);
                isUsed[number] = true;
            }

            return count;
        }
    }
}

using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>
/// The memory of a snapshot as a state is to have it: from its layers, or in place of a fold that is not kept from the layers that it was made from, which are: what has
/// not changed is not written again.
/// </summary>
internal sealed class MemoryToSave
{
    private MemoryToSave(IReadOnlyList<Part> layers, IReadOnlyList<FoldOrigin.Extent> extents) => (Layers, Extents) = (layers, extents);

    /// <summary>The layers that pages come from, each once.</summary>
    internal IReadOnlyList<Part> Layers { get; }

    /// <summary>The extents, by ascending page.</summary>
    internal IReadOnlyList<FoldOrigin.Extent> Extents { get; }

    /// <param name="memory">The memory.</param>
    /// <param name="isKept">Whether a layer is kept.</param>
    internal static MemoryToSave Of(PageMap memory, Func<Guid, bool> isKept)
    {
        HashSet<Guid> present = [.. memory.Layers.Select(static layer => layer.Id)];
        List<Part> parts = [];
        Dictionary<MemoryLayer, FoldOrigin> unfolded = new(ReferenceEqualityComparer.Instance);
        HashSet<Guid> listed = [];
        foreach (MemoryLayer layer in memory.Layers)
        {
            PageIndex index = layer.GetIndex();
            if (layer.Origin is not { } origin)
            {
                Add(new Part(layer.Id, layer, index));
            }
            else if (isKept(layer.Id))
            {
                // From now on others are told apart from it, and not from what it was made from, which may go.
                layer.Origin = null;
                Add(new Part(layer.Id, layer, index));
            }
            else if (origin.Layers.All(source => present.Contains(source.Id) || isKept(source.Id)))
            {
                unfolded.Add(layer, origin);
                foreach (FoldOrigin.Source source in origin.Layers)
                {
                    Add(new Part(source.Id, memory.Layers.FirstOrDefault(found => found.Id == source.Id), source.Index));
                }
            }
            else
            {
                Add(new Part(layer.Id, layer, index));
            }
        }

        List<FoldOrigin.Extent> extents = new(memory.Extents.Length);
        foreach (PageExtent extent in memory.Extents)
        {
            if (unfolded.TryGetValue(extent.Layer, out FoldOrigin? origin))
            {
                extents.AddRange(origin.Find(extent.Start, extent.Length));
            }
            else
            {
                extents.Add(new FoldOrigin.Extent(extent.Start, extent.Length, extent.Layer.Id));
            }
        }

        // A layer of which newer ones have hidden everything is not referred to.
        HashSet<Guid> used = [.. extents.Select(static extent => extent.Layer)];
        return new MemoryToSave([.. parts.Where(part => used.Contains(part.Id))], extents);

        void Add(Part part)
        {
            if (listed.Add(part.Id))
            {
                parts.Add(part);
            }
        }
    }

    /// <summary>A layer.</summary>
    /// <param name="Id">The layer.</param>
    /// <param name="Layer">What is in memory of it; <see langword="null"/> when it is only kept.</param>
    /// <param name="Index">The pages that it holds.</param>
    internal sealed record Part(Guid Id, MemoryLayer? Layer, PageIndex Index);
}

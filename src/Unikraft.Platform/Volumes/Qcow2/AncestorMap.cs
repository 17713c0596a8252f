namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>
/// Which of the layers beneath an image has a cluster that the image has not, so that a read does not have to ask them one after the other. They
/// do not change any more, so what was found once stays true.
/// </summary>
/// <remarks>Safe for concurrent use: whoever finds out at the same time finds the same.</remarks>
internal sealed class AncestorMap
{
    /// <summary>In clusters of 64 KiB these cover 32 GiB, and take half a mebibyte.</summary>
    private const int Slots = 1024;

    private const int ClustersPerSlot = 512;
    private const int MaxLayers = 254;

    /// <summary>In a slot: not known yet, and in no layer. Other values are the number of the layer plus 1.</summary>
    private const byte Unknown = 0;
    private const byte Nowhere = 255;

    private readonly BlockLayer[] _layers;
    private readonly int _clusterBits;
    private readonly Slot?[] _slots = new Slot?[Slots];

    /// <summary>Makes the map of all that is beneath an image.</summary>
    /// <param name="first">The layer beneath it. Frozen.</param>
    /// <param name="clusterBits">The size of the image's clusters.</param>
    internal AncestorMap(BlockLayer first, int clusterBits)
    {
        List<BlockLayer> layers = [];
        for (BlockLayer? layer = first; layer is not null && layers.Count < MaxLayers; layer = (layer as Qcow2Image)?.Backing)
        {
            layers.Add(layer);
        }

        _layers = [.. layers];
        _clusterBits = clusterBits;
    }

    /// <summary>Reads what the image has not.</summary>
    internal void Read(long offset, Span<byte> buffer)
    {
        while (!buffer.IsEmpty)
        {
            long cluster = offset >> _clusterBits;
            byte owner = OwnerOf(cluster);
            long end = (cluster + 1) << _clusterBits;
            while (end - offset < buffer.Length && OwnerOf(end >> _clusterBits) == owner)
            {
                end += 1L << _clusterBits;
            }

            Span<byte> part = buffer[..(int)Math.Min(buffer.Length, end - offset)];
            BlockLayer.ReadOrZero(owner == Nowhere ? null : _layers[owner - 1], offset, part);
            offset += part.Length;
            buffer = buffer[part.Length..];
        }
    }

    private byte OwnerOf(long cluster)
    {
        ref Slot? place = ref _slots[(cluster / ClustersPerSlot) & (Slots - 1)];
        Slot? slot = Volatile.Read(ref place);
        if (slot is null || slot.Index != cluster / ClustersPerSlot)
        {
            slot = new Slot(cluster / ClustersPerSlot);
            Volatile.Write(ref place, slot);
        }

        ref byte owner = ref slot.Owners[cluster & (ClustersPerSlot - 1)];
        byte known = Volatile.Read(ref owner);
        if (known == Unknown)
        {
            known = FindOwner(cluster);
            Volatile.Write(ref owner, known);
        }

        return known;
    }

    private byte FindOwner(long cluster)
    {
        for (int i = 0; i < _layers.Length; i++)
        {
            // What a layer that ends in the cluster hides of those beneath it, it has to say itself; so do layers that are divided differently.
            if (_layers[i] is not Qcow2Image image || image.ClusterSize != 1 << _clusterBits || (cluster + 1) << _clusterBits > image.Size
                || i == MaxLayers - 1 || image.Has(cluster))
            {
                return (byte)(i + 1);
            }
        }

        return Nowhere;
    }

    private sealed class Slot(long index)
    {
        internal long Index { get; } = index;

        internal byte[] Owners { get; } = new byte[ClustersPerSlot];
    }
}

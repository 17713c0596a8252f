namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>The bits of an entry of an L1 or L2 table.</summary>
internal static class MappingEntry
{
    /// <summary>The cluster is referred to once.</summary>
    internal const ulong Copied = 1UL << 63;

    internal const ulong Compressed = 1UL << 62;

    /// <summary>The cluster reads as zeroes, whatever it holds and the backing file does.</summary>
    internal const ulong Zero = 1;

    internal const ulong OffsetMask = 0x00ff_ffff_ffff_fe00;

    private const ulong ReservedInL1 = 0x7f00_0000_0000_01ff;
    private const ulong ReservedInL2 = 0x3f00_0000_0000_01fe;

    internal static long Offset(ulong entry) => (long)(entry & OffsetMask);

    internal static bool IsWellFormedL1(ulong entry, int clusterBits) =>
        (entry & ReservedInL1) == 0 && IsAligned(entry, clusterBits);

    internal static ClusterKind KindOf(ulong entry) => (entry & Compressed) != 0 ? ClusterKind.Compressed
        : (entry & Zero) != 0 ? ClusterKind.Zero
        : (entry & OffsetMask) != 0 ? ClusterKind.Data
        : ClusterKind.Unallocated;

    internal static bool IsWellFormedL2(ulong entry, int clusterBits) =>
        (entry & Compressed) != 0 ? (entry & Copied) == 0 : (entry & ReservedInL2) == 0 && IsAligned(entry, clusterBits);

    /// <summary>Where compressed data is: the offset, and how many bytes from there to the end of its last sector.</summary>
    internal static (long Offset, int Length) CompressedRange(ulong entry, int clusterBits)
    {
        const int SectorSize = 512;
        int offsetBits = 62 - (clusterBits - 8);
        long offset = (long)(entry & ((1UL << offsetBits) - 1));
        int sectors = (int)((entry & ~(Copied | Compressed)) >> offsetBits);
        return (offset, (sectors + 1) * SectorSize - (int)(offset & (SectorSize - 1)));
    }

    private static bool IsAligned(ulong entry, int clusterBits) => (Offset(entry) & ((1L << clusterBits) - 1)) == 0;
}

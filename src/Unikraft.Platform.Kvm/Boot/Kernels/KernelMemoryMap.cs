using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>Where the RAM of a kernel guest lies in its physical address space, and what else there is.</summary>
internal sealed class KernelMemoryMap
{
    /// <summary>RAM ends here and continues at <see cref="GapEnd"/>: devices and interrupt controllers lie between.</summary>
    internal const long GapStart = 0xC000_0000;

    /// <summary>The first address behind the gap.</summary>
    internal const long GapEnd = 0x1_0000_0000;

    /// <summary>The gap between the two.</summary>
    internal static readonly MemoryGap Gap = new(GapStart, GapEnd);

    /// <summary>Where the memory below 1 MiB ends that a kernel may use as it likes.</summary>
    internal const long BaseMemoryEnd = 0x9_FC00;

    /// <summary>The memory map that all protocols pass on is made of at most this many regions.</summary>
    internal const int MaxRegions = 4;

    internal KernelMemoryMap(long size)
    {
        Size = size;
        List<Region> regions =
        [
            new(0, BaseMemoryEnd, RegionKind.Usable),
            new(KernelLayout.AcpiTables, KernelImage.LowestAddress - KernelLayout.AcpiTables, RegionKind.Reserved),
            new(KernelImage.LowestAddress, LowEnd - KernelImage.LowestAddress, RegionKind.Usable),
        ];
        if (size > GapStart)
        {
            regions.Add(new Region(GapEnd, size - GapStart, RegionKind.Usable));
        }

        Regions = regions;
    }

    /// <summary>The bytes of RAM.</summary>
    internal long Size { get; }

    /// <summary>Where the RAM below the gap ends.</summary>
    internal long LowEnd => Math.Min(Size, GapStart);

    /// <summary>The regions by ascending address.</summary>
    internal IReadOnlyList<Region> Regions { get; }

    /// <summary>What a kernel may do with a region; the values are those of the e820 interface, which all protocols have taken over.</summary>
    internal enum RegionKind
    {
        Usable = 1,
        Reserved = 2,
    }

    /// <summary>A region.</summary>
    /// <param name="Address">Its guest physical address.</param>
    /// <param name="Length">Its size in bytes.</param>
    /// <param name="Kind">What a kernel may do with it.</param>
    internal sealed record Region(long Address, long Length, RegionKind Kind);
}

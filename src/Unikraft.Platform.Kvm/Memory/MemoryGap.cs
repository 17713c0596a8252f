using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>A gap in the guest physical addresses of a memory, which goes on behind it. The default is none.</summary>
/// <param name="Start">The first address that is not memory.</param>
/// <param name="End">The first one behind it that is.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct MemoryGap(long Start, long End)
{
    /// <summary>Finds where a range of guest physical addresses lies in the memory.</summary>
    /// <param name="memorySize">The size of the memory, without the gap.</param>
    /// <param name="address">The guest physical address.</param>
    /// <param name="length">The number of bytes.</param>
    /// <param name="offset">The offset in the memory.</param>
    /// <returns>Whether all of the range is memory, in one piece.</returns>
    internal bool TryLocate(long memorySize, ulong address, uint length, out long offset)
    {
        bool isBelow = address < (ulong)Start;
        ulong moved = isBelow ? address : address - (ulong)(End - Start);
        long end = isBelow ? Math.Min(memorySize, Start) : memorySize;
        if ((!isBelow && address < (ulong)End) || moved > (ulong)end)
        {
            offset = 0;
            return false;
        }

        offset = (long)moved;
        return length <= end - offset;
    }
}

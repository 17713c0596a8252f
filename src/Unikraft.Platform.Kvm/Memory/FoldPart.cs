using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>A part of a guest's memory that is brought together at a time.</summary>
/// <remarks>
/// A fold of all memory takes longer than some branches of a guest that writes a lot take together: none of them would gain from it. One part is there soon, and what was written
/// meanwhile is not scattered over the others.
/// </remarks>
/// <param name="From">The first page.</param>
/// <param name="To">The first page after it.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct FoldPart(int From, int To)
{
    /// <summary>Each part is a layer of its own, and a mapping of each machine.</summary>
    private const int MaxParts = 8;

    /// <summary>16 MiB, which are brought together in some 10 ms.</summary>
    private const int MinPages = 1 << 12;

    /// <summary>Finds the part that is most worth being brought together.</summary>
    /// <param name="map">The memory.</param>
    /// <param name="pages">The number of pages of the guest.</param>
    /// <param name="gain">How many pages fewer a load would copy if all parts were.</param>
    internal static FoldPart Find(PageMap map, int pages, out int gain)
    {
        int size = Math.Max(MinPages, (pages + MaxParts - 1) / MaxParts);
        gain = 0;
        (FoldPart best, int most) = (default, 0);
        LoadPlan plan = map.Plan;
        int copied = 0;
        for (int from = 0; from < pages; from += size)
        {
            FoldPart part = new(from, Math.Min(pages, from + size));
            int gained = -CountCopied(map.Within(part.From, part.To), part);
            for (; copied < plan.Copied.Length && plan.Copied[copied].Start < part.To; copied++)
            {
                gained += plan.Copied[copied].Length;
            }

            gain += Math.Max(0, gained);
            (best, most) = gained > most ? (part, gained) : (best, most);
        }

        return best;
    }

    /// <summary>Counts the pages that would be copied still: what lies alone among zeroes, as <see cref="LoadPlan"/> has it.</summary>
    private static int CountCopied(ReadOnlySpan<PageExtent> extents, FoldPart part)
    {
        int copied = 0;
        bool isMapped = false;
        for (int i = 0; i < extents.Length;)
        {
            int start = Math.Max(part.From, extents[i].Start);
            int end = extents[i].End;
            for (i++; i < extents.Length && extents[i].Start == end; i++)
            {
                end = extents[i].End;
            }

            int length = Math.Min(part.To, end) - start;
            isMapped |= length >= GuestMemory.MapThreshold;
            copied += isMapped ? 0 : length;
            isMapped &= i < extents.Length && extents[i].Start - end <= LoadPlan.MaxZeroes;
        }

        return copied;
    }
}

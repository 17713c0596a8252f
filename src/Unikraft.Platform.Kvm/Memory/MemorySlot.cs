using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>A part of guest memory that KVM knows as one slot, with a dirty log of its own.</summary>
/// <param name="Id">The number of the slot.</param>
/// <param name="FirstPage">Its first page, a multiple of <see cref="PageBitmap.BitsPerWord"/>, so that its log is a range of words.</param>
/// <param name="Pages">The number of pages.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct MemorySlot(int Id, int FirstPage, int Pages)
{
    /// <summary>Divides memory into slots.</summary>
    /// <param name="pages">The pages of the memory.</param>
    /// <param name="slotPages">The most pages of one slot, a multiple of <see cref="PageBitmap.BitsPerWord"/> unless it is at least <paramref name="pages"/>.</param>
    internal static MemorySlot[] Divide(int pages, int slotPages)
    {
        if (slotPages >= pages)
        {
            return [new MemorySlot(0, 0, pages)];
        }

        ArgumentOutOfRangeException.ThrowIfNotEqual(slotPages % PageBitmap.BitsPerWord, 0, nameof(slotPages));
        MemorySlot[] slots = new MemorySlot[(pages + slotPages - 1) / slotPages];
        for (int i = 0; i < slots.Length; i++)
        {
            slots[i] = new MemorySlot(i, i * slotPages, Math.Min(slotPages, pages - i * slotPages));
        }

        return slots;
    }
}

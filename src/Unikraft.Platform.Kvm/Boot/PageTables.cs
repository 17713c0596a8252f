using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Boot;

/// <summary>Builds 4-level page tables in guest memory (Intel SDM volume 3, chapter 4; AMD64 volume 2, chapter 5).</summary>
internal sealed class PageTables
{
    private const ulong Present = 1 << 0;
    private const ulong Writable = 1 << 1;
    private const ulong User = 1 << 2;
    private const ulong Accessed = 1 << 5;
    private const ulong Dirty = 1 << 6;
    private const ulong Large = 1 << 7;
    private const ulong NoExecute = 1UL << 63;
    private const ulong AddressMask = 0x000F_FFFF_FFFF_F000;

    private const int LargePage = 2 << 20;
    private const int IndexMask = 511;
    private const int LevelBits = 9;
    private const int PointerSize = 8;
    private const int TopLevel = 3;

    private readonly GuestMemory _memory;
    private readonly string _image;
    private long _next;

    internal PageTables(GuestMemory memory, string image)
    {
        _memory = memory;
        _image = image;
        _next = FlatGuestLayout.PageTablesAddress;
        Root = Allocate();
    }

    /// <summary>The guest physical address for CR3.</summary>
    internal long Root { get; }

    /// <summary>Maps a range of whole pages, by large pages where that is possible.</summary>
    internal void Map(long virtualAddress, ulong physicalAddress, long length, PageAccess access)
    {
        // Accessed and dirty are set in advance: the guest's walks then never write to the tables.
        ulong flags = Present | Accessed | Dirty
            | (access.HasFlag(PageAccess.Write) ? Writable : 0)
            | (access.HasFlag(PageAccess.User) ? User : 0)
            | (access.HasFlag(PageAccess.Execute) ? 0 : NoExecute);
        long end = virtualAddress + length;
        while (virtualAddress < end)
        {
            bool large = ((virtualAddress | (long)physicalAddress) & (LargePage - 1)) == 0 && end - virtualAddress >= LargePage;
            int size = large ? LargePage : PageSize.Bytes;
            long table = Walk(virtualAddress, large ? 1 : 0);
            _memory.Write(Entry(table, virtualAddress, large ? 1 : 0), physicalAddress | flags | (large ? Large : 0));
            virtualAddress += size;
            physicalAddress += (ulong)size;
        }
    }

    private static long Entry(long table, long virtualAddress, int level) =>
        table + (virtualAddress >> (PageSize.Shift + level * LevelBits) & IndexMask) * PointerSize;

    private long Walk(long virtualAddress, int leafLevel)
    {
        long table = Root;
        for (int level = TopLevel; level > leafLevel; level--)
        {
            long address = Entry(table, virtualAddress, level);
            ulong entry = _memory.Read<ulong>(address);
            if ((entry & Present) == 0)
            {
                // The leaves decide what is allowed.
                entry = (ulong)Allocate() | Present | Writable | User | Accessed;
                _memory.Write(address, entry);
            }

            table = (long)(entry & AddressMask);
        }

        return table;
    }

    private long Allocate()
    {
        if (_next == FlatGuestLayout.PageTablesEnd)
        {
            throw new ImageException(
                ImageError.SegmentOutOfRange,
                _image,
                $"The segments of the image '{_image}' are spread over too much memory for the platform's page tables. Link them closer together.");
        }

        long page = _next;
        _next += PageSize.Bytes;
        return page;
    }
}

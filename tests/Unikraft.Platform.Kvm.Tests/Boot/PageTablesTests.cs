using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Boot;

public sealed class PageTablesTests
{
    private const ulong Page = 0x1000;
    private const string Ring0 = "ring 0";
    private const string Unmapped = "none";

    [Theory]
    [InlineData("hello", 1, 4)]
    [InlineData("counter", 2, 37)]
    [InlineData("contract", 8, 64)]
    [InlineData("crash", 3, 1025)]
    public void Every_page_has_the_access_the_abi_promises(string guest, int vcpus, int memoryMb)
    {
        ElfImage image = ElfImage.Parse(guest, GuestImages.Read(guest));
        FlatGuestLayout layout = new(image, (long)memoryMb << 20, vcpus);
        using GuestMemory memory = new(layout.MemorySize);
        Load(memory, image, layout, guest);

        Dictionary<ulong, (ulong Physical, string Access)> mapped = Walk(memory);

        ulong end = (ulong)layout.MemorySize;
        for (ulong page = 0; page < end; page += Page)
        {
            string expected = Expected(page, image, layout);
            (ulong physical, string access) = mapped.GetValueOrDefault(page, (page, Unmapped));
            Assert.True((expected, access is Unmapped ? page : PhysicalOf(page)) == (Describe(access), physical), $"page 0x{page:x} is {access} at 0x{physical:x}, expected {expected}");
            mapped.Remove(page);
        }

        Assert.Empty(mapped);
    }

    [Fact]
    public void The_widest_spread_of_segments_that_an_image_can_have_finds_room()
    {
        ElfBuilder builder = ElfBuilder.Program();

        // Each segment lies across a boundary of 1 GiB and takes two page tables and two directories.
        for (ulong i = 1; i < 64; i++)
        {
            builder.Segments.Add(new() { Address = (i << 30) - Page, MemorySize = 2 * Page });
        }

        ElfImage image = ElfImage.Parse("far.elf", builder.Build());
        FlatGuestLayout layout = new(image, 64L << 30, 8);
        using GuestMemory memory = new(layout.MemorySize);

        Load(memory, image, layout, "far.elf");

        Assert.Equal("far.elf"u8, memory.Read(memory.Read<long>(FlatGuestLayout.StringsAddress), 7));
    }

    [Fact]
    public void More_than_the_tables_hold_is_a_typed_error_that_damages_nothing()
    {
        using GuestMemory memory = new(1L << 30);
        PageTables tables = new(memory, "far.elf");

        ImageException error = Assert.Throws<ImageException>(() =>
        {
            for (long region = 0; region < 512; region++)
            {
                tables.Map(region << 21, (ulong)region << 21, (long)Page, PageAccess.User);
            }
        });

        Assert.Equal(ImageError.SegmentOutOfRange, error.Error);
        Assert.Contains("far.elf", error.Message, StringComparison.Ordinal);
        Assert.False(memory.Read(FlatGuestLayout.PageTablesEnd, 1 << 16).ContainsAnyExcept((byte)0));
    }

    private static void Load(GuestMemory memory, ElfImage image, FlatGuestLayout layout, string name)
    {
        MachineConfiguration configuration = new() { Uuid = Guid.NewGuid(), Name = name, Image = name, Vcpus = layout.Vcpus, MemoryMb = 1 };
        FlatGuestLoader.Load(memory, image, layout, GuestStrings.From(configuration), configuration.Uuid, name);
    }

    private static ulong PhysicalOf(ulong page) => page switch
    {
        FlatGuestLayout.DisksVirtualAddress => FlatGuestLayout.DisksPhysicalAddress,
        FlatGuestLayout.DisksVirtualAddress + Page => FlatGuestLayout.DisksPhysicalAddress + Page,
        FlatGuestLayout.DeviceVirtualAddress => FlatGuestLayout.DevicePhysicalAddress,
        FlatGuestLayout.FaultVirtualAddress => FlatGuestLayout.FaultPhysicalAddress,
        _ => page,
    };

    /// <summary>What ring 0 may do with its own pages is the platform's affair.</summary>
    private static string Describe(string access) => access.StartsWith(Ring0, StringComparison.Ordinal) ? Ring0 : access;

    private static string Expected(ulong page, ElfImage image, FlatGuestLayout layout)
    {
        switch (page)
        {
            case 0:
                return Unmapped;
            case < 0xE_E000:
                return Ring0;
            case < 0xF_0000:
                return "rw";
            case < 0xF_C000:
                return "r";
            case 0xF_C000:
                return "rw";
            case 0xF_D000:
                return "rx";
            case 0xF_E000:
                return "rw";
            case 0xF_F000:
                return Ring0;
        }

        foreach (ElfSegment segment in image.Segments)
        {
            if (page + Page > (ulong)segment.Address && page < (ulong)segment.End)
            {
                return "r" + (segment.IsWritable ? "w" : "") + (segment.IsExecutable ? "x" : "");
            }
        }

        return layout.IsAccessible(page, Page, write: true) ? "rw" : Unmapped;
    }

    /// <summary>Walks the tables as a CPU does.</summary>
    private static Dictionary<ulong, (ulong Physical, string Access)> Walk(GuestMemory memory)
    {
        Dictionary<ulong, (ulong Physical, string Access)> pages = [];
        Visit(FlatGuestLayout.PageTablesAddress, level: 3, 0, writable: true, user: true, executable: true);
        return pages;

        void Visit(long table, int level, ulong virtualAddress, bool writable, bool user, bool executable)
        {
            for (int i = 0; i < 512; i++)
            {
                ulong entry = memory.Read<ulong>(table + i * sizeof(ulong));
                if ((entry & 1) == 0)
                {
                    Assert.Equal(0UL, entry);
                    continue;
                }

                ulong address = virtualAddress + ((ulong)i << (12 + 9 * level));
                bool w = writable && (entry & 2) != 0;
                bool u = user && (entry & 4) != 0;
                bool x = executable && entry >> 63 == 0;
                ulong physical = entry & 0x000F_FFFF_FFFF_F000;
                if (level > 0 && (entry & 1 << 7) == 0)
                {
                    Assert.InRange((long)physical, FlatGuestLayout.PageTablesAddress, FlatGuestLayout.PageTablesEnd - 1);
                    Visit((long)physical, level - 1, address, w, u, x);
                    continue;
                }

                Assert.InRange(level, 0, 1);
                ulong size = Page << (9 * level);
                Assert.Equal(0UL, physical & (size - 1));
                string access = (u ? "r" : Ring0) + (w ? "w" : "") + (x ? "x" : "");
                for (ulong offset = 0; offset < size; offset += Page)
                {
                    pages.Add(address + offset, (physical + offset, access));
                }
            }
        }
    }
}

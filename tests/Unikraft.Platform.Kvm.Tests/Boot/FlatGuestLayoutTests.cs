using Unikraft.Platform.Kvm.Boot;

namespace Unikraft.Platform.Kvm.Tests.Boot;

public sealed class FlatGuestLayoutTests
{
    private const long Memory = 37L << 20;
    private const long Base = (long)ElfBuilder.Base;
    private const long Page = 0x1000;

    private static readonly ElfImage Image = MakeImage();

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(8)]
    public void Every_page_belongs_to_what_the_abi_says(int vcpus)
    {
        FlatGuestLayout layout = new(Image, Memory, vcpus);
        for (long address = 0; address < Memory; address += Page)
        {
            (bool read, bool write, bool guard) = Expected(address, vcpus);
            Assert.True(
                (read, write, guard) == (
                    layout.IsAccessible((ulong)address, (ulong)Page, write: false),
                    layout.IsAccessible((ulong)address, (ulong)Page, write: true),
                    layout.IsStackGuard((ulong)address)),
                $"page 0x{address:x} with {vcpus} vCPUs");
            Assert.Equal(guard, layout.IsStackGuard((ulong)(address + Page - 1)));
            Assert.False(layout.IsHeapWindow((ulong)address));
        }
    }

    [Fact]
    public void Ranges_may_span_neighbours_but_not_holes_and_not_less_rights()
    {
        FlatGuestLayout layout = new(Image, Memory, 2);

        // Code, then data: readable as one, writable only in the data.
        Assert.True(layout.IsAccessible((ulong)Base, 0x3000, write: false));
        Assert.False(layout.IsAccessible((ulong)Base, 0x3000, write: true));
        Assert.False(layout.IsAccessible((ulong)(Base + 0xFFF), 2, write: true));
        Assert.True(layout.IsAccessible((ulong)(Base + 0x1000), 0x2000, write: true));

        // The hole behind, and the guard page below the first stack.
        Assert.False(layout.IsAccessible((ulong)(Base + 0x2FFF), 2, write: false));
        Assert.False(layout.IsAccessible((ulong)layout.StacksStart, 1, write: false));
        Assert.False(layout.IsAccessible((ulong)layout.StackTop(0) - 1, 2, write: false));
        Assert.False(layout.IsAccessible((ulong)layout.HeapStart - 1, 1, write: false));
        Assert.True(layout.IsAccessible((ulong)layout.HeapStart, (ulong)(Memory - layout.HeapStart), write: true));
    }

    [Theory]
    [InlineData(Memory - 1, 2)]
    [InlineData(Memory, 1)]
    [InlineData(Memory - 1, ulong.MaxValue)]
    [InlineData(ulong.MaxValue, 2)]
    [InlineData(ulong.MaxValue, ulong.MaxValue)]
    [InlineData(1UL << 63, 1)]
    [InlineData(Base, 1UL << 63)]
    [InlineData(Base, ulong.MaxValue - Base + 1)]
    [InlineData(0, 1)]
    [InlineData(0, ulong.MaxValue)]
    public void No_range_overflows_into_memory(ulong address, ulong length)
    {
        FlatGuestLayout layout = new(Image, Memory, 1);
        Assert.False(layout.IsAccessible(address, length, write: false));
        Assert.False(layout.IsAccessible(address, length, write: true));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(Base)]
    [InlineData(Memory)]
    [InlineData(1UL << 63)]
    [InlineData(ulong.MaxValue)]
    public void A_range_of_no_bytes_is_accessible_anywhere(ulong address)
    {
        FlatGuestLayout layout = new(Image, Memory, 1);
        Assert.True(layout.IsAccessible(address, 0, write: false));
        Assert.True(layout.IsAccessible(address, 0, write: true));
    }

    [Fact]
    public void The_heap_window_reaches_from_the_end_of_memory_to_its_own_end()
    {
        FlatGuestLayout layout = new(Image, Memory, 1);
        Assert.False(layout.IsHeapWindow(Memory - 1));
        Assert.True(layout.IsHeapWindow(Memory));
        Assert.True(layout.IsHeapWindow(FlatGuestLayout.HeapWindowEnd - 1));
        Assert.False(layout.IsHeapWindow(FlatGuestLayout.HeapWindowEnd));
        Assert.False(layout.IsHeapWindow(ulong.MaxValue));
    }

    [Fact]
    public void Random_ranges_are_judged_as_byte_by_byte()
    {
        FlatGuestLayout layout = new(Image, Memory, 3);
        Random random = new(7);
        long[] edges = [Base, Base + 0x1000, Base + 0x3000, layout.StacksStart, layout.StackTop(0), layout.StackTop(2), layout.HeapStart, Memory];
        for (int round = 0; round < 20_000; round++)
        {
            long address = Math.Max(0, edges[random.Next(edges.Length)] + random.Next(-0x1800, 0x1800));
            int length = random.Next(1, 0x3000);
            bool write = random.Next(2) == 0;
            bool expected = true;
            for (long page = address & -Page; page < address + length; page += Page)
            {
                (bool readable, bool writable, _) = Expected(page, 3);
                expected &= write ? writable : readable;
            }

            Assert.True(expected == layout.IsAccessible((ulong)address, (ulong)length, write), $"0x{address:x}+0x{length:x} {write}");
        }
    }

    /// <summary>Section 3 of the ABI, in the simplest form.</summary>
    private static (bool Read, bool Write, bool Guard) Expected(long page, int vcpus)
    {
        const long Stack = FlatGuestLayout.StackSize + Page;
        const long Stacks = Base + 0x3000 + 0x1000 + 0x1000;
        long heap = Stacks + vcpus * Stack + Page;
        if (page < Base || page >= Memory)
        {
            return default;
        }

        if (page < Base + 0x1000)
        {
            return (true, false, false);
        }

        if (page < Base + 0x3000)
        {
            return (true, true, false);
        }

        if (page < Stacks)
        {
            // A hole of one page, then a page of constants.
            return (page >= Stacks - Page, false, false);
        }

        return page >= heap ? (true, true, false) : (page - Stacks) % Stack < Page ? (false, false, true) : (true, true, false);
    }

    private static ElfImage MakeImage()
    {
        ElfBuilder builder = ElfBuilder.Program();
        builder.Segments.Add(new() { Address = (ulong)Base + 0x1000, MemorySize = 0x1001, Flags = ElfBuilder.Read | ElfBuilder.Write });
        builder.Segments.Add(new() { Address = (ulong)Base + 0x4000, MemorySize = 8 });
        return ElfImage.Parse("layout.elf", builder.Build());
    }
}

using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Tests.Memory;

public sealed class MemoryGapTests
{
    private static readonly MemoryGap Gap = new(0x2000, 0x1_0000);

    [Theory]
    [InlineData(0, 0x2000, 0)]
    [InlineData(0x1FFF, 1, 0x1FFF)]
    [InlineData(0x1_0000, 0x3000, 0x2000)]
    [InlineData(0x1_2FFF, 1, 0x4FFF)]
    [InlineData(0x1_3000, 0, 0x5000)]
    public void What_is_memory_is_found(ulong address, uint length, long offset)
    {
        Assert.True(Gap.TryLocate(memorySize: 0x5000, address, length, out long found));
        Assert.Equal(offset, found);
    }

    [Theory]
    [InlineData(0, 0x2001)]
    [InlineData(0x1FFF, 2)]
    [InlineData(0x2000, 0)]
    [InlineData(0x2000, 1)]
    [InlineData(0xFFFF, 1)]
    [InlineData(0x1_0000, 0x3001)]
    [InlineData(0x1_3000, 1)]
    [InlineData(0x1_3001, 0)]
    [InlineData(ulong.MaxValue, 1)]
    [InlineData(ulong.MaxValue, uint.MaxValue)]
    public void What_is_not_is_not(ulong address, uint length) => Assert.False(Gap.TryLocate(memorySize: 0x5000, address, length, out _));

    [Theory]
    [InlineData(0x1000, 0x1000, true)]
    [InlineData(0x1000, 0x1001, false)]
    [InlineData(0x2000, 0, true)]
    [InlineData(0x1_0000, 1, false)]
    public void A_memory_that_ends_before_the_gap_ends_there(ulong address, uint length, bool isMemory) =>
        Assert.Equal(isMemory && address < 0x2000, Gap.TryLocate(memorySize: 0x2000, address, length, out _));

    [Fact]
    public void A_queue_and_its_buffers_are_found_on_both_sides()
    {
        const long Below = 0x1000;
        const long Above = 0x4000;
        const long Shift = 0x1_0000 - 0x2000;
        using GuestMemory memory = new(0x6000) { Gap = Gap };
        VirtqueueSettings settings = new() { Size = 2, Descriptors = (ulong)(Above + Shift), Available = Below, Used = (ulong)(Above + Shift + 0x800) };
        Virtqueue queue = Virtqueue.TryCreate(memory, settings)!;

        // A table behind the gap leads to a buffer on either side of it.
        WriteDescriptor(Above, (ulong)(Above + Shift + 0x400), 32, flags: 4, next: 0);
        WriteDescriptor(Above + 0x400, Below + 0x800, 8, flags: 3, next: 1);
        WriteDescriptor(Above + 0x410, (ulong)(Above + Shift + 0x100), 8, flags: 2, next: 0);
        memory.Write(Below + 2, (ushort)1);
        VirtqueueRequest request = queue.TryTake()!;
        Assert.Equal(16, request.WritableLength);
        request.Write(0, "belowit!aboveit!"u8);
        queue.Return(request, 16);

        Assert.Equal("belowit!"u8.ToArray(), memory.Read(Below + 0x800, 8).ToArray());
        Assert.Equal("aboveit!"u8.ToArray(), memory.Read(Above + 0x100, 8).ToArray());
        Assert.Equal(1, memory.Read<ushort>(Above + 0x802));

        // The offset in memory is no address for a driver.
        WriteDescriptor(Above + 0x10, Above, 8, flags: 2, next: 0);
        memory.Write(Below + 4 + 2, (ushort)1);
        memory.Write(Below + 2, (ushort)2);
        Assert.Throws<InvalidDataException>(queue.TryTake);
        Assert.Null(Virtqueue.TryCreate(memory, settings with { Used = Above }));

        void WriteDescriptor(long at, ulong address, uint length, ushort flags, ushort next)
        {
            memory.Write(at, address);
            memory.Write(at + 8, length);
            memory.Write(at + 12, flags);
            memory.Write(at + 14, next);
        }
    }
}

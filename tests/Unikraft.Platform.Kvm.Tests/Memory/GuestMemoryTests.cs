using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Memory;

public sealed class GuestMemoryTests
{
    private const long Size = 1 << 20;

    public static TheoryData<long, int> Outside => new()
    {
        { -1, 1 },
        { -1, 0 },
        { 0, -1 },
        { Size, 1 },
        { Size - 1, 2 },
        { Size + 1, 0 },
        { 0, (int)Size + 1 },
        { long.MaxValue, 1 },
        { long.MaxValue, int.MaxValue },
        { long.MinValue, int.MaxValue },
        { Size - 4, int.MaxValue },
    };

    [Theory]
    [MemberData(nameof(Outside))]
    public void Nothing_outside_is_read_or_written(long address, int length)
    {
        using GuestMemory memory = new(Size);
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Read(address, length).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Fill(address, length, 0, static (_, _) => throw new InvalidOperationException("reached")));
        if (length is >= 0 and < 1 << 22)
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => memory.Write(address, new byte[length]));
        }

        Assert.Equal(0, memory.WrittenByHost.Count());
    }

    [Fact]
    public void Values_are_checked_by_their_size()
    {
        using GuestMemory memory = new(Size);
        memory.Write(Size - 8, 0x1122334455667788UL);
        Assert.Equal(0x1122334455667788UL, memory.Read<ulong>(Size - 8));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Read<ulong>(Size - 7));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Write(Size - 7, 1UL));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Read<byte>(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.PageRun((int)(Size >> PageSize.Shift), 1).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.PageRun(-1, 1).Length);
    }

    [Fact]
    public void Every_write_marks_the_pages_it_touches()
    {
        using GuestMemory memory = new(Size);
        memory.Write(0x0FFF, (ushort)1);
        memory.Write(0x3000, ReadOnlySpan<byte>.Empty);
        memory.Write(0, ReadOnlySpan<byte>.Empty);
        memory.Write(0x5001, new byte[0x2000]);
        int filled = memory.Fill(0x9000, 0x2000, 0, static (bytes, _) =>
        {
            bytes[..0x1000].Fill(1);
            return 0x1000;
        });

        Assert.Equal(0x1000, filled);
        Assert.Equal([0, 1, 5, 6, 7, 9], Enumerable.Range(0, memory.Pages).Where(page => memory.WrittenByHost[page]));
    }

    [Fact]
    public void Memory_that_is_gone_is_refused()
    {
        GuestMemory memory = new(Size);
        memory.Dispose();
        Assert.Throws<ObjectDisposedException>(() => memory.Read<byte>(0));
        Assert.Throws<ObjectDisposedException>(() => memory.Write(0, (byte)1));
        Assert.Equal(0, memory.CountPrivateBytes());
    }

    [Fact]
    public void More_memory_than_there_are_addresses_is_a_typed_error() =>
        Assert.Throws<HypervisorException>(() => new GuestMemory(1L << 48));

    [Fact]
    public void Private_bytes_are_those_of_one_memory_alone()
    {
        // Made one after the other, memories are neighbours in the address space.
        GuestMemory[] memories = [.. Enumerable.Range(0, 4).Select(_ => new GuestMemory(Size))];
        for (int i = 0; i < memories.Length; i++)
        {
            for (int page = 0; page < 10 * i; page++)
            {
                memories[i].Write((long)page << PageSize.Shift, 1);
            }
        }

        Assert.Equal([0, 10 * 4096, 20 * 4096, 30 * 4096], memories.Select(memory => memory.CountPrivateBytes()));
        Array.ForEach(memories, memory => memory.Dispose());
    }

    [Fact]
    public void What_comes_from_a_layer_is_private_only_after_a_write()
    {
        const int Pages = (int)(Size >> PageSize.Shift);
        using GuestMemory source = new(Size);
        for (int page = 0; page < Pages; page++)
        {
            source.Write((long)page << PageSize.Shift, 1);
        }

        using LayerWriter writer = new(Pages);
        writer.Copy(source, source.WrittenByHost);
        using PageMap map = writer.Seal(null);
        using GuestMemory copy = new(Size);
        copy.Install(map);
        for (int page = 0; page < Pages; page++)
        {
            Assert.Equal(1, copy.Read<int>((long)page << PageSize.Shift));
        }

        Assert.Equal(0, copy.CountPrivateBytes());
        copy.Write(0, 2);
        copy.Write(5 << PageSize.Shift, 2);
        Assert.Equal(2 * PageSize.Bytes, copy.CountPrivateBytes());
    }
}

using Unikraft.Platform.Kvm.Devices;

namespace Unikraft.Platform.Kvm.Tests.Devices;

public sealed class MmioBusTests
{
    private static readonly FakeMachine.Initiator Vcpu = new(0);

    [Fact]
    public void Accesses_reach_the_device_at_their_address()
    {
        MmioBus bus = new();
        Probe low = new(1);
        Probe high = new(2);
        bus.Attach(0x1000, 0x1000, low);
        bus.Attach(0x2000, 0x1000, high);

        Assert.Equal([1, 1, 1, 1], Read(bus, 0x1000, 4));
        Assert.Equal([1], Read(bus, 0x1FFF, 1));
        Assert.Equal([2, 2, 2, 2, 2, 2, 2, 2], Read(bus, 0x2FF8, 8));
        bus.Write(Vcpu, 0x2008, [7, 8]);

        Assert.Equal([(0UL, 4), (0xFFFUL, 1)], low.Reads);
        Assert.Equal([(0xFF8UL, 8)], high.Reads);
        Assert.Equal([(8UL, "0708")], high.Writes);
        Assert.Empty(low.Writes);
    }

    [Theory]
    [InlineData(0xFFF, 1)]
    [InlineData(0xFFF, 2)]
    [InlineData(0x1FFF, 2)]
    [InlineData(0x1FF9, 8)]
    [InlineData(0x3000, 1)]
    [InlineData(0, 8)]
    [InlineData(ulong.MaxValue, 8)]
    [InlineData(ulong.MaxValue - 0xFFF, 8)]
    public void Where_no_device_is_reads_give_ones_and_writes_nothing(ulong address, int length)
    {
        MmioBus bus = new();
        Probe probe = new(0);
        bus.Attach(0x1000, 0x1000, probe);

        Assert.All(Read(bus, address, length), value => Assert.Equal(byte.MaxValue, value));
        bus.Write(Vcpu, address, new byte[length]);

        Assert.Empty(probe.Reads);
        Assert.Empty(probe.Writes);
    }

    [Theory]
    [InlineData(0x1000, 0x1000)]
    [InlineData(0x0, 0x1001)]
    [InlineData(0x1FFF, 1)]
    [InlineData(0x1800, 0x10)]
    [InlineData(0x0, 0x10000)]
    public void Two_devices_do_not_overlap(ulong address, ulong length)
    {
        MmioBus bus = new();
        bus.Attach(0x1000, 0x1000, new Probe(1));
        Assert.Throws<ArgumentException>(() => bus.Attach(address, length, new Probe(2)));
        Assert.Equal([1], Read(bus, 0x1000, 1));
        bus.Attach(0x2000, 0x1000, new Probe(3));
        bus.Attach(0x0, 0x1000, new Probe(4));
    }

    private static byte[] Read(MmioBus bus, ulong address, int length)
    {
        byte[] data = new byte[length];
        bus.Read(Vcpu, address, data);
        return data;
    }

    private sealed class Probe(byte value) : IMmioDevice
    {
        internal List<(ulong Offset, int Length)> Reads { get; } = [];

        internal List<(ulong Offset, string Data)> Writes { get; } = [];

        public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data)
        {
            Reads.Add((offset, data.Length));
            data.Fill(value);
        }

        public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data) => Writes.Add((offset, Convert.ToHexString(data)));
    }
}

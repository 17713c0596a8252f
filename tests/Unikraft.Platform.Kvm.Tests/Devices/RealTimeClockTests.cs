using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Devices;

public sealed class RealTimeClockTests
{
    private readonly ManualTimeProvider _time = new(new DateTimeOffset(2031, 12, 29, 23, 58, 59, TimeSpan.Zero));
    private readonly RealTimeClock _clock;

    public RealTimeClockTests() => _clock = new RealTimeClock(_time);

    [Fact]
    public void It_shows_the_time_in_decimal_digits()
    {
        Assert.Equal([0x59, 0x58, 0x23, 0x02, 0x29, 0x12, 0x31, 0x20], ReadTime());
        Assert.Equal((0x02, 0x80, 0), (Read(0x0B), Read(0x0D), Read(0x0C)));
        _time.Advance(TimeSpan.FromMinutes(1));
        Assert.Equal([0x59, 0x59, 0x23, 0x02, 0x29, 0x12, 0x31, 0x20], ReadTime());
        _time.Advance(TimeSpan.FromHours(48) + TimeSpan.FromSeconds(1));
        Assert.Equal([0x00, 0x00, 0x00, 0x05, 0x01, 0x01, 0x32, 0x20], ReadTime());
    }

    [Fact]
    public void It_announces_each_update_before_it_happens()
    {
        Assert.Equal(0x26, Read(0x0A));
        _time.Advance(TimeSpan.FromMilliseconds(997));
        Assert.Equal(0x26, Read(0x0A));
        _time.Advance(TimeSpan.FromMilliseconds(1));
        Assert.Equal(0xA6, Read(0x0A));
        Assert.Equal(0x59, Read(0));
        _time.Advance(TimeSpan.FromMilliseconds(2));
        Assert.Equal(0x26, Read(0x0A));
        Assert.Equal(0x00, Read(0));
    }

    [Fact]
    public void The_time_cannot_be_set_and_the_bit_for_interrupts_is_no_part_of_the_index()
    {
        Select(0x80);
        _clock.Write(new FakeMachine.Initiator(0), 1, [0x11]);
        Assert.Equal(0, _clock.Index);
        Assert.Equal(0x59, Read(0x80));
    }

    private int[] ReadTime() => [.. ((byte[])[0, 2, 4, 6, 7, 8, 9, 0x32]).Select(index => (int)Read(index))];

    private byte Read(byte index)
    {
        Select(index);
        byte[] value = new byte[1];
        _clock.Read(new FakeMachine.Initiator(0), 1, value);
        return value[0];
    }

    private void Select(byte index) => _clock.Write(new FakeMachine.Initiator(0), 0, [index]);
}

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>
/// The time of day as PCs have it, for kernels that know nothing better: Unikraft does not boot without. It cannot be set, and has no alarm and no memory.
/// </summary>
/// <remarks>Registers: those of the MC146818A, in decimal digits and 24 hours.</remarks>
internal sealed class RealTimeClock(TimeProvider timeProvider) : IMmioDevice
{
    internal const ushort FirstPort = 0x70;
    internal const byte Ports = 2;

    private const byte IndexMask = 0x7F;

    private const int Seconds = 0x00;
    private const int Minutes = 0x02;
    private const int Hours = 0x04;
    private const int DayOfWeek = 0x06;
    private const int Day = 0x07;
    private const int Month = 0x08;
    private const int Year = 0x09;
    private const int StatusA = 0x0A;
    private const int StatusB = 0x0B;
    private const int StatusD = 0x0D;
    private const int Century = 0x32;

    private const byte Divider = 0x26;
    private const byte UpdateInProgress = 0x80;
    private const byte TwentyFourHours = 0x02;
    private const byte TimeIsValid = 0x80;

    /// <summary>Who sees that no update is under way has at least that long until the next one, as drivers expect.</summary>
    private static readonly TimeSpan s_update = TimeSpan.FromMilliseconds(2);

    /// <summary>The register that is selected. Only changed by vCPUs, which know among themselves whose turn it is.</summary>
    internal byte Index { get; set; }

    public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data)
    {
        data.Fill(byte.MaxValue);
        if (offset == 1)
        {
            data[0] = Read(timeProvider.GetUtcNow());
        }
    }

    public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset == 0)
        {
            Index = (byte)(data[0] & IndexMask);
        }
    }

    private static byte Digits(int number) => (byte)(number / 10 << 4 | number % 10);

    private byte Read(DateTimeOffset now) => Index switch
    {
        Seconds => Digits(now.Second),
        Minutes => Digits(now.Minute),
        Hours => Digits(now.Hour),
        DayOfWeek => Digits((int)now.DayOfWeek + 1),
        Day => Digits(now.Day),
        Month => Digits(now.Month),
        Year => Digits(now.Year % 100),
        Century => Digits(now.Year / 100),
        StatusA => (byte)(Divider | (now.Ticks % TimeSpan.TicksPerSecond >= TimeSpan.TicksPerSecond - s_update.Ticks ? UpdateInProgress : 0)),
        StatusB => TwentyFourHours,
        StatusD => TimeIsValid,
        _ => 0,
    };
}

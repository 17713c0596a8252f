using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>What a snapshot holds of a machine with a kernel beyond its vCPUs and the platform device.</summary>
internal sealed record KernelState
{
    internal const int InterruptControllers = 3;

    private const int ReceivedCapacity = 16;
    private const int SerialSize = 32;
    private const int FixedSize = 32;
    private const uint HasFifos = 1;
    private const uint IsTransmitterEmptyPending = 2;

    /// <summary>The number of bytes of <see cref="Write"/>.</summary>
    internal static int Size { get; } = FixedSize + SerialSize + InterruptControllers * Unsafe.SizeOf<KvmIrqchip>();

    /// <summary>The interrupt controllers that all vCPUs share, by their numbers.</summary>
    public required KvmIrqchip[] Chips { get; init; }

    /// <summary>The paravirtual clock in nanoseconds.</summary>
    public required ulong Clock { get; init; }

    /// <summary>The time by the host's clock.</summary>
    public required DateTimeOffset TakenAt { get; init; }

    /// <summary>The frequency of the time stamp counter in kHz; 0 when KVM does not tell.</summary>
    public required int TscKhz { get; init; }

    /// <summary>The console.</summary>
    public required SerialPortState Serial { get; init; }

    /// <summary>The events that the guest had not read.</summary>
    public required byte PowerEvents { get; init; }

    /// <summary>When the guest counts as running.</summary>
    public required RunningRule Rule { get; init; }

    /// <summary>By how much the clocks of the guest have to go on.</summary>
    internal TimeSpan ElapsedAt(DateTimeOffset now) => now > TakenAt ? now - TakenAt : TimeSpan.Zero;

    /// <summary>What a time stamp counter has become.</summary>
    internal ulong Advance(ulong tsc, DateTimeOffset now)
    {
        const int TicksPerMillisecond = (int)TimeSpan.TicksPerMillisecond;
        return tsc + (ulong)((UInt128)ElapsedAt(now).Ticks * (uint)TscKhz / TicksPerMillisecond);
    }

    /// <summary>Makes a state of what <see cref="Write"/> wrote; null when it could not have written it.</summary>
    internal static KernelState? Read(ReadOnlySpan<byte> source)
    {
        long takenAt = BinaryPrimitives.ReadInt64LittleEndian(source[8..]);
        int tscKhz = BinaryPrimitives.ReadInt32LittleEndian(source[16..]);
        uint rule = BinaryPrimitives.ReadUInt32LittleEndian(source[20..]);
        uint events = BinaryPrimitives.ReadUInt32LittleEndian(source[24..]);
        ReadOnlySpan<byte> serial = source.Slice(FixedSize, SerialSize);
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(serial[8..]);
        int received = BinaryPrimitives.ReadInt32LittleEndian(serial[12..]);
        if (takenAt < 0 || takenAt > DateTimeOffset.MaxValue.Ticks || tscKhz < 0 || rule > (uint)RunningRule.FirstOutput || events > byte.MaxValue
            || received is < 0 or > ReceivedCapacity || (flags & ~(HasFifos | IsTransmitterEmptyPending)) != 0)
        {
            return null;
        }

        KvmIrqchip[] chips = new KvmIrqchip[InterruptControllers];
        ReadOnlySpan<byte> rest = source[(FixedSize + SerialSize)..];
        for (int i = 0; i < chips.Length; i++)
        {
            chips[i] = MemoryMarshal.Read<KvmIrqchip>(rest[(i * Unsafe.SizeOf<KvmIrqchip>())..]);
            if (chips[i].ChipId != i)
            {
                return null;
            }
        }

        return new KernelState
        {
            Clock = BinaryPrimitives.ReadUInt64LittleEndian(source),
            TakenAt = new DateTimeOffset(takenAt, TimeSpan.Zero),
            TscKhz = tscKhz,
            Rule = (RunningRule)rule,
            PowerEvents = (byte)events,
            Chips = chips,
            Serial = new SerialPortState(
                BinaryPrimitives.ReadUInt16LittleEndian(serial[4..]),
                serial[0],
                serial[1],
                serial[2],
                serial[3],
                (flags & HasFifos) != 0,
                (flags & IsTransmitterEmptyPending) != 0,
                serial.Slice(16, received).ToArray()),
        };
    }

    /// <summary>Writes the state, in the order of docs/snapshot-format.md.</summary>
    internal void Write(Span<byte> destination)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(destination, Clock);
        BinaryPrimitives.WriteInt64LittleEndian(destination[8..], TakenAt.UtcTicks);
        BinaryPrimitives.WriteInt32LittleEndian(destination[16..], TscKhz);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[20..], (uint)Rule);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[24..], PowerEvents);
        Span<byte> serial = destination.Slice(FixedSize, SerialSize);
        (serial[0], serial[1], serial[2], serial[3]) = (Serial.InterruptEnable, Serial.LineControl, Serial.ModemControl, Serial.Scratch);
        BinaryPrimitives.WriteUInt16LittleEndian(serial[4..], Serial.Divisor);
        BinaryPrimitives.WriteUInt32LittleEndian(
            serial[8..],
            (Serial.HasFifos ? HasFifos : 0) | (Serial.IsTransmitterEmptyPending ? IsTransmitterEmptyPending : 0));
        BinaryPrimitives.WriteInt32LittleEndian(serial[12..], Serial.Received.Length);
        Serial.Received.Span.CopyTo(serial[16..]);
        Span<byte> rest = destination[(FixedSize + SerialSize)..];
        for (int i = 0; i < Chips.Length; i++)
        {
            MemoryMarshal.Write(rest[(i * Unsafe.SizeOf<KvmIrqchip>())..], in Chips[i]);
        }
    }
}

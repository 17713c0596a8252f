using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>What a snapshot holds of a machine with a kernel beyond its vCPUs and the platform device.</summary>
internal sealed record KernelState
{
    internal const int InterruptControllers = 3;

    private const int ReceivedCapacity = 16;
    private const int SerialSize = 32;
    private const int FixedSize = 32;
    private const int PortsEnd = FixedSize + 2 * SerialSize;
    private const uint HasFifos = 1;
    private const uint IsTransmitterEmptyPending = 2;

    private static int ChipsStart => PortsEnd + VirtioDeviceState.Size + Unsafe.SizeOf<KvmPitState2>();

    /// <summary>The number of bytes of <see cref="Write"/>.</summary>
    internal static int Size { get; } = ChipsStart + InterruptControllers * Unsafe.SizeOf<KvmIrqchip>();

    /// <summary>The interrupt controllers that all vCPUs share, by their numbers.</summary>
    public required KvmIrqchip[] Chips { get; init; }

    /// <summary>The programmable timer.</summary>
    public required KvmPitState2 Timer { get; init; }

    /// <summary>The register of the real-time clock that is selected.</summary>
    public required byte ClockIndex { get; init; }

    /// <summary>The paravirtual clock in nanoseconds.</summary>
    public required ulong Clock { get; init; }

    /// <summary>The time by the host's clock.</summary>
    public required DateTimeOffset TakenAt { get; init; }

    /// <summary>The frequency of the time stamp counter in kHz; 0 when KVM does not tell.</summary>
    public required int TscKhz { get; init; }

    /// <summary>The console.</summary>
    public required SerialPortState Serial { get; init; }

    /// <summary>The port on which the guest hears of new generations.</summary>
    public required SerialPortState Generation { get; init; }

    /// <summary>The source of random bytes.</summary>
    public required VirtioDeviceState Entropy { get; init; }

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
        uint clockIndex = BinaryPrimitives.ReadUInt32LittleEndian(source[28..]);
        if (takenAt < 0 || takenAt > DateTimeOffset.MaxValue.Ticks || tscKhz < 0 || rule > (uint)RunningRule.FirstOutput || events > byte.MaxValue || clockIndex > sbyte.MaxValue
            || ReadPort(source[FixedSize..]) is not { } serial || ReadPort(source[(FixedSize + SerialSize)..]) is not { } generation
            || VirtioDeviceState.Read(source[PortsEnd..]) is not { } entropy || !VirtioEntropy.CouldBe(entropy))
        {
            return null;
        }

        KvmIrqchip[] chips = new KvmIrqchip[InterruptControllers];
        ReadOnlySpan<byte> rest = source[ChipsStart..];
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
            Timer = MemoryMarshal.Read<KvmPitState2>(source[(PortsEnd + VirtioDeviceState.Size)..]),
            ClockIndex = (byte)clockIndex,
            Serial = serial,
            Generation = generation,
            Entropy = entropy,
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
        BinaryPrimitives.WriteUInt32LittleEndian(destination[28..], ClockIndex);
        WritePort(destination[FixedSize..], Serial);
        WritePort(destination[(FixedSize + SerialSize)..], Generation);
        Entropy.Write(destination[PortsEnd..]);
        KvmPitState2 timer = Timer;
        MemoryMarshal.Write(destination[(PortsEnd + VirtioDeviceState.Size)..], in timer);
        Span<byte> rest = destination[ChipsStart..];
        for (int i = 0; i < Chips.Length; i++)
        {
            MemoryMarshal.Write(rest[(i * Unsafe.SizeOf<KvmIrqchip>())..], in Chips[i]);
        }
    }

    private static SerialPortState? ReadPort(ReadOnlySpan<byte> source)
    {
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(source[8..]);
        int received = BinaryPrimitives.ReadInt32LittleEndian(source[12..]);
        return received is < 0 or > ReceivedCapacity || (flags & ~(HasFifos | IsTransmitterEmptyPending)) != 0
            || BinaryPrimitives.ReadUInt16LittleEndian(source[6..]) != 0 || source[(16 + received)..SerialSize].ContainsAnyExcept((byte)0)
            ? null
            : new SerialPortState(
                BinaryPrimitives.ReadUInt16LittleEndian(source[4..]),
                source[0],
                source[1],
                source[2],
                source[3],
                (flags & HasFifos) != 0,
                (flags & IsTransmitterEmptyPending) != 0,
                source.Slice(16, received).ToArray());
    }

    private static void WritePort(Span<byte> destination, SerialPortState port)
    {
        (destination[0], destination[1], destination[2], destination[3]) = (port.InterruptEnable, port.LineControl, port.ModemControl, port.Scratch);
        BinaryPrimitives.WriteUInt16LittleEndian(destination[4..], port.Divisor);
        BinaryPrimitives.WriteUInt32LittleEndian(
            destination[8..],
            (port.HasFifos ? HasFifos : 0) | (port.IsTransmitterEmptyPending ? IsTransmitterEmptyPending : 0));
        BinaryPrimitives.WriteInt32LittleEndian(destination[12..], port.Received.Length);
        port.Received.Span.CopyTo(destination[16..]);
    }
}

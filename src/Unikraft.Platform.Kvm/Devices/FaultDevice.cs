using System.Buffers.Binary;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>Where the platform's ring-0 stubs report a CPU exception: makes the stop code of it and ends the machine.</summary>
internal sealed class FaultDevice(GuestMemory memory, FlatGuestLayout layout, PlatformDevice platform, IMachineControl control) : IMmioDevice
{
    private const int NonMaskableInterrupt = 2;
    private const int InvalidOpcode = 6;
    private const int PageFault = 14;
    private const int FrameSize = 5 * sizeof(ulong);
    private const ulong PageIsPresent = 1 << 0;
    private const ulong InstructionFetch = 1 << 4;

    private const int ErrnoNoMemory = 12;
    private const int ErrnoAccess = 13;
    private const int ErrnoBadAddress = 14;
    private const int ErrnoTimedOut = 110;
    private const int ErrnoNotRecoverable = 131;

    private volatile bool _killRequested;

    /// <summary>The stop code that stands for a fault no handler could be entered for.</summary>
    internal StopCode TripleFault => platform.MakeStopCode(StopCodeReason.Exception, ErrnoNotRecoverable);

    /// <summary>From now on a non-maskable interrupt means that the app is to be killed.</summary>
    internal void ExpectKill() => _killRequested = true;

    /// <summary>
    /// The guest touched a device with an instruction that KVM cannot emulate. Some flavours of KVM raise #UD by themselves, others leave it to
    /// the VMM; for the guest it is the same.
    /// </summary>
    internal void OnEmulationFailure(IMmioInitiator initiator, ulong instructionPointer, ulong stackPointer)
    {
        GuestFault fault = new(initiator.Index, InvalidOpcode, 0, instructionPointer, stackPointer, Address: null);
        control.End(new MachineExit.Crashed(Classify(fault), fault));
    }

    public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data) => data.Fill(byte.MaxValue);

    public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset != 0 || data.Length != sizeof(uint))
        {
            return;
        }

        int vector = (int)BinaryPrimitives.ReadUInt32LittleEndian(data);
        GuestFault fault = ReadFault(initiator, vector);
        control.End(new MachineExit.Crashed(Classify(fault), fault));
    }

    private static bool HasErrorCode(int vector) => vector is 8 or (>= 10 and <= 14) or 17 or 21 or 29 or 30;

    private GuestFault ReadFault(IMmioInitiator initiator, int vector)
    {
        ulong stack = initiator.StackPointer;
        ulong? address = vector == PageFault ? initiator.FaultAddress : null;
        bool hasErrorCode = HasErrorCode(vector);
        int length = FrameSize + (hasErrorCode ? sizeof(ulong) : 0);
        if (stack > (ulong)(memory.Size - length))
        {
            // Only a guest that has overwritten ring 0 gets here, which its page tables do not allow.
            return new GuestFault(initiator.Index, vector, 0, 0, stack, address);
        }

        ReadOnlySpan<byte> frame = memory.Read((long)stack, length);
        ulong errorCode = 0;
        if (hasErrorCode)
        {
            errorCode = BinaryPrimitives.ReadUInt64LittleEndian(frame);
            frame = frame[sizeof(ulong)..];
        }

        return new GuestFault(
            initiator.Index,
            vector,
            errorCode,
            BinaryPrimitives.ReadUInt64LittleEndian(frame),
            BinaryPrimitives.ReadUInt64LittleEndian(frame[(3 * sizeof(ulong))..]),
            address);
    }

    private StopCode Classify(GuestFault fault)
    {
        if (fault.Vector == NonMaskableInterrupt && _killRequested)
        {
            return platform.MakeStopCode(StopCodeReason.Exception, ErrnoTimedOut, killed: true);
        }

        (StopCodeReason reason, int errno) = fault.Vector switch
        {
            0 or 16 or 19 => (StopCodeReason.Math, 0),
            1 or 3 or 4 or 5 or InvalidOpcode or 7 or 17 => (StopCodeReason.InvalidOperation, 0),
            PageFault => ClassifyPageFault(fault.Address!.Value, fault.ErrorCode),
            10 or 11 or 12 or 13 => (StopCodeReason.SegmentationFault, ErrnoBadAddress),
            18 => (StopCodeReason.HardwareError, 0),
            21 => (StopCodeReason.SecurityViolation, ErrnoAccess),
            _ => (StopCodeReason.Exception, 0),
        };
        return platform.MakeStopCode(reason, errno);
    }

    private (StopCodeReason Reason, int Errno) ClassifyPageFault(ulong address, ulong errorCode)
    {
        if ((errorCode & PageIsPresent) != 0)
        {
            return (StopCodeReason.SecurityViolation, ErrnoAccess);
        }

        if (layout.IsHeapWindow(address) && (errorCode & InstructionFetch) == 0)
        {
            return (StopCodeReason.PageFault, ErrnoNoMemory);
        }

        return layout.IsStackGuard(address)
            ? (StopCodeReason.SegmentationFault, ErrnoNoMemory)
            : (StopCodeReason.PageFault, ErrnoBadAddress);
    }
}

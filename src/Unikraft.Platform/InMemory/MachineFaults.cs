namespace Unikraft.Platform.InMemory;

/// <summary>Section 7 of the guest ABI: which stop code a CPU exception becomes.</summary>
internal static class MachineFaults
{
    private const int NoMemory = 12;
    private const int AccessDenied = 13;
    private const int BadAddress = 14;
    private const int TimedOut = 110;
    private const int NotRecoverable = 131;
    private const int NonMaskableInterrupt = 2;
    private const ulong HeapWindowEnd = 0x80_0000_0000;
    private const ulong PageWasMapped = 1;

    /// <summary>The exception by which the kernel kills an app.</summary>
    public static GuestFault Kill { get; } = new(Vcpu: 0, NonMaskableInterrupt, ErrorCode: 0, InstructionPointer: 0x100000, StackPointer: 0, null);

    public static (StopCodeReason Reason, int Errno) Killed => (StopCodeReason.Exception, TimedOut);

    public static (StopCodeReason Reason, int Errno) TripleFault => (StopCodeReason.Exception, NotRecoverable);

    public static (StopCodeReason Reason, int Errno) Of(GuestFault fault, bool isGuardPage, ulong ramBytes) => fault.Vector switch
    {
        0 or 16 or 19 => (StopCodeReason.Math, 0),
        1 or 3 or 4 or 5 or 6 or 7 or 17 => (StopCodeReason.InvalidOperation, 0),
        14 when isGuardPage => (StopCodeReason.SegmentationFault, NoMemory),
        14 when fault.Address >= ramBytes && fault.Address < HeapWindowEnd => (StopCodeReason.PageFault, NoMemory),
        14 when (fault.ErrorCode & PageWasMapped) != 0 => (StopCodeReason.SecurityViolation, AccessDenied),
        14 => (StopCodeReason.PageFault, BadAddress),
        10 or 11 or 12 or 13 => (StopCodeReason.SegmentationFault, BadAddress),
        18 => (StopCodeReason.HardwareError, 0),
        21 => (StopCodeReason.SecurityViolation, AccessDenied),
        _ => (StopCodeReason.Exception, 0),
    };
}

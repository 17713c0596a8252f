namespace Unikraft.Platform;

/// <summary>Why a guest's kernel stopped: bits 0 to 7 of a <see cref="StopCode"/>.</summary>
/// <remarks>Values above <see cref="SecurityViolation"/> are kept as they are: a newer kernel may know more reasons.</remarks>
public enum StopCodeReason
{
    /// <summary><c>OK</c>: successful shutdown.</summary>
    Ok = 0,

    /// <summary><c>EXP</c>: the system detected an invalid state and actively stopped execution to prevent data corruption.</summary>
    Exception = 1,

    /// <summary><c>MATH</c>: an arithmetic CPU error, for example division by zero.</summary>
    Math = 2,

    /// <summary><c>INVLOP</c>: invalid CPU instruction or instruction error, for example wrong operand alignment.</summary>
    InvalidOperation = 3,

    /// <summary><c>PGFAULT</c>: page fault; <see cref="StopCode.Errno"/> tells more.</summary>
    PageFault = 4,

    /// <summary><c>SEGFAULT</c>: segmentation fault.</summary>
    SegmentationFault = 5,

    /// <summary><c>HWERR</c>: hardware error.</summary>
    HardwareError = 6,

    /// <summary><c>SECERR</c>: security violation, for example of memory access protections.</summary>
    SecurityViolation = 7,
}

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>Constants of <c>linux/userfaultfd.h</c>, and the number of the system call on x86-64.</summary>
internal static class UserFaultConstants
{
    internal const nint SystemCall = 323;
    internal const int UserModeOnly = 1;

    internal const ulong ApiVersion = 0xAA;
    internal const nuint Api = 0xC018AA3F;
    internal const nuint Register = 0xC020AA00;
    internal const nuint Unregister = 0x8010AA01;
    internal const nuint Copy = 0xC028AA03;

    internal const ulong RegisterModeMissing = 1;
    internal const ulong CopyModeDontWake = 1;
}

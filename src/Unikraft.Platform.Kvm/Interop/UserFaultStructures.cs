using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary><c>struct uffdio_api</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UserFaultApi
{
    internal ulong Api;
    internal ulong Features;
    internal ulong Ioctls;
}

/// <summary><c>struct uffdio_range</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UserFaultRange
{
    internal ulong Start;
    internal ulong Length;
}

/// <summary><c>struct uffdio_register</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UserFaultRegister
{
    internal ulong Start;
    internal ulong Length;
    internal ulong Mode;
    internal ulong Ioctls;
}

/// <summary><c>struct uffdio_copy</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct UserFaultCopy
{
    internal ulong Destination;
    internal ulong Source;
    internal ulong Length;
    internal ulong Mode;
    internal long Copied;
}

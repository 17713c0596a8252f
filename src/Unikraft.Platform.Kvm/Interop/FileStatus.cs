using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>The fields of <c>struct statx</c> that are of use here. The kernel fills in all 256 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 256)]
internal struct FileStatus
{
    [FieldOffset(32)]
    internal ulong Inode;

    [FieldOffset(40)]
    internal ulong Size;

    [FieldOffset(96)]
    internal long ChangeSeconds;

    [FieldOffset(104)]
    internal uint ChangeNanoseconds;

    [FieldOffset(136)]
    internal uint DeviceMajor;

    [FieldOffset(140)]
    internal uint DeviceMinor;
}

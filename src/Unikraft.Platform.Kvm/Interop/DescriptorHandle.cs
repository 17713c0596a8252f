using Microsoft.Win32.SafeHandles;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>Owns a file descriptor.</summary>
internal sealed class DescriptorHandle : SafeHandleMinusOneIsInvalid
{
    /// <summary>Takes ownership of the descriptor that a system call returned.</summary>
    internal DescriptorHandle(int descriptor)
        : base(ownsHandle: true) => SetHandle(descriptor);

    protected override bool ReleaseHandle() => Libc.Close((int)handle) == 0;
}

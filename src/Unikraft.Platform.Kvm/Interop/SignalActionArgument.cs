using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary><c>struct sigaction</c> of the C library on 64-bit Linux.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct SignalActionArgument
{
    internal nint Handler;
    internal SignalSet Mask;
    internal int Flags;
    internal nint Restorer;

    /// <summary><c>sigset_t</c>: 1024 bits.</summary>
    [InlineArray(16)]
    internal struct SignalSet
    {
        private ulong _first;
    }
}

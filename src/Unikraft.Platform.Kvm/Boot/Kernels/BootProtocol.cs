namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>How a kernel is entered and told about its machine.</summary>
internal enum BootProtocol
{
    /// <summary>The 64-bit entry of the Linux x86 boot protocol: long mode, a zero page.</summary>
    Linux64,

    /// <summary>The x86/HVM direct boot ABI: 32-bit protected mode, a start info structure.</summary>
    Pvh,

    /// <summary>Multiboot, version 1: 32-bit protected mode, a multiboot information structure.</summary>
    Multiboot,
}

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>How the first vCPU enters a kernel.</summary>
/// <param name="IsLongMode">In 64-bit mode, on the platform's page tables; otherwise in 32-bit protected mode without paging.</param>
/// <param name="Rip">The first instruction.</param>
/// <param name="Rax">What the protocol puts into this register.</param>
/// <param name="Rbx">Likewise.</param>
/// <param name="Rsi">Likewise.</param>
internal sealed record KernelEntry(bool IsLongMode, ulong Rip, ulong Rax, ulong Rbx, ulong Rsi);

using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>How the first vCPU enters a kernel.</summary>
/// <param name="IsLongMode">In 64-bit mode, on the platform's page tables; otherwise in 32-bit protected mode without paging.</param>
/// <param name="Rip">The first instruction.</param>
/// <param name="Rax">What the protocol puts into this register.</param>
/// <param name="Rbx">Likewise.</param>
/// <param name="Rsi">Likewise.</param>
internal sealed record KernelEntry(bool IsLongMode, ulong Rip, ulong Rax, ulong Rbx, ulong Rsi)
{
    private const ulong ProtectionEnabled = 1 << 0;
    private const ulong ExtensionType = 1 << 4;
    private const ulong PagingEnabled = 1UL << 31;
    private const ulong PhysicalAddressExtension = 1 << 5;
    private const ulong LongModeEnabledAndActive = 1 << 8 | 1 << 10;
    private const ulong InitialFlags = 2;
    private const ushort CodeSelector = 0x10;
    private const ushort DataSelector = 0x18;
    private const byte CodeAccessed = 11;
    private const byte DataAccessed = 3;
    private const byte BusyTaskSegment = 11;
    private const uint TaskSegmentLimit = 0x67;
    private const ushort DescriptorTableLimit = 0x1F;

    /// <summary>Brings a new vCPU to the entry point. Interrupts are off, and there is no stack.</summary>
    internal void Apply(KvmVcpu vcpu)
    {
        KvmSregs sregs = default;
        vcpu.Get(ref sregs);
        sregs.Cs = Segment(CodeSelector, CodeAccessed) with { L = (byte)(IsLongMode ? 1 : 0), Db = (byte)(IsLongMode ? 0 : 1) };
        sregs.Ds = sregs.Es = sregs.Fs = sregs.Gs = sregs.Ss = Segment(DataSelector, DataAccessed);
        sregs.Tr = new KvmSegment { Limit = TaskSegmentLimit, Type = BusyTaskSegment, Present = 1 };
        sregs.Ldt = new KvmSegment { Unusable = 1 };
        sregs.Gdt = new KvmDtable { Base = (ulong)KernelLayout.DescriptorTable, Limit = DescriptorTableLimit };
        sregs.Idt = default;
        sregs.Cr0 = ProtectionEnabled | ExtensionType;
        sregs.Cr3 = 0;
        sregs.Cr4 = 0;
        sregs.Efer = 0;
        if (IsLongMode)
        {
            sregs.Cr0 |= PagingEnabled;
            sregs.Cr3 = (ulong)KernelLayout.PageTables;
            sregs.Cr4 = PhysicalAddressExtension;
            sregs.Efer = LongModeEnabledAndActive;
        }

        vcpu.Set(ref sregs);
        KvmRegs regs = new() { Rip = Rip, Rax = Rax, Rbx = Rbx, Rsi = Rsi, Rflags = InitialFlags };
        vcpu.Set(ref regs);
    }

    private static KvmSegment Segment(ushort selector, byte type) => new()
    {
        Limit = uint.MaxValue,
        Selector = selector,
        Type = type,
        Present = 1,
        Db = 1,
        S = 1,
        G = 1,
    };
}

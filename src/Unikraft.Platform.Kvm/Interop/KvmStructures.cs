using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

// Structures of linux/kvm.h for x86-64, field by field. A test compares size and every offset with the header.

/// <summary><c>struct kvm_userspace_memory_region</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmUserspaceMemoryRegion
{
    internal uint Slot;
    internal uint Flags;
    internal ulong GuestPhysAddr;
    internal ulong MemorySize;
    internal ulong UserspaceAddr;
}

/// <summary><c>struct kvm_dirty_log</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmDirtyLog
{
    internal uint Slot;
    internal uint Padding1;
    internal nint DirtyBitmap;
}

/// <summary><c>struct kvm_clear_dirty_log</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmClearDirtyLog
{
    internal uint Slot;
    internal uint NumPages;
    internal ulong FirstPage;
    internal nint DirtyBitmap;
}

/// <summary><c>struct kvm_enable_cap</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmEnableCap
{
    internal uint Cap;
    internal uint Flags;
    internal Arguments Args;
    internal Padding Pad;

    [InlineArray(4)]
    internal struct Arguments
    {
        private ulong _first;
    }

    [InlineArray(64)]
    internal struct Padding
    {
        private byte _first;
    }
}

/// <summary><c>struct kvm_irq_level</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmIrqLevel
{
    internal uint Irq;
    internal uint Level;
}

/// <summary><c>struct kvm_regs</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmRegs
{
    internal ulong Rax;
    internal ulong Rbx;
    internal ulong Rcx;
    internal ulong Rdx;
    internal ulong Rsi;
    internal ulong Rdi;
    internal ulong Rsp;
    internal ulong Rbp;
    internal ulong R8;
    internal ulong R9;
    internal ulong R10;
    internal ulong R11;
    internal ulong R12;
    internal ulong R13;
    internal ulong R14;
    internal ulong R15;
    internal ulong Rip;
    internal ulong Rflags;
}

/// <summary><c>struct kvm_segment</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmSegment
{
    internal ulong Base;
    internal uint Limit;
    internal ushort Selector;
    internal byte Type;
    internal byte Present;
    internal byte Dpl;
    internal byte Db;
    internal byte S;
    internal byte L;
    internal byte G;
    internal byte Avl;
    internal byte Unusable;
    internal byte Padding;
}

/// <summary><c>struct kvm_dtable</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmDtable
{
    internal ulong Base;
    internal ushort Limit;
    internal Padding Pad;

    [InlineArray(3)]
    internal struct Padding
    {
        private ushort _first;
    }
}

/// <summary><c>struct kvm_sregs</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmSregs
{
    internal KvmSegment Cs;
    internal KvmSegment Ds;
    internal KvmSegment Es;
    internal KvmSegment Fs;
    internal KvmSegment Gs;
    internal KvmSegment Ss;
    internal KvmSegment Tr;
    internal KvmSegment Ldt;
    internal KvmDtable Gdt;
    internal KvmDtable Idt;
    internal ulong Cr0;
    internal ulong Cr2;
    internal ulong Cr3;
    internal ulong Cr4;
    internal ulong Cr8;
    internal ulong Efer;
    internal ulong ApicBase;
    internal Bitmap InterruptBitmap;

    [InlineArray(4)]
    internal struct Bitmap
    {
        private ulong _first;
    }
}

/// <summary><c>struct kvm_xsave</c> in its classic size, which holds all but dynamically enabled features.</summary>
[InlineArray(1024)]
internal struct KvmXsave
{
    private uint _first;
}

/// <summary><c>struct kvm_xcr</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmXcr
{
    internal uint Xcr;
    internal uint Reserved;
    internal ulong Value;
}

/// <summary><c>struct kvm_xcrs</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmXcrs
{
    internal uint NrXcrs;
    internal uint Flags;
    internal Registers Xcrs;
    internal Padding Pad;

    [InlineArray(16)]
    internal struct Registers
    {
        private KvmXcr _first;
    }

    [InlineArray(16)]
    internal struct Padding
    {
        private ulong _first;
    }
}

/// <summary><c>struct kvm_vcpu_events</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmVcpuEvents
{
    internal byte ExceptionInjected;
    internal byte ExceptionNr;
    internal byte ExceptionHasErrorCode;
    internal byte ExceptionPending;
    internal uint ExceptionErrorCode;
    internal byte InterruptInjected;
    internal byte InterruptNr;
    internal byte InterruptSoft;
    internal byte InterruptShadow;
    internal byte NmiInjected;
    internal byte NmiPending;
    internal byte NmiMasked;
    internal byte NmiPad;
    internal uint SipiVector;
    internal uint Flags;
    internal byte SmiSmm;
    internal byte SmiPending;
    internal byte SmiSmmInsideNmi;
    internal byte SmiLatchedInit;
    internal byte TripleFaultPending;
    internal Padding Reserved;
    internal byte ExceptionHasPayload;
    internal ulong ExceptionPayload;

    [InlineArray(26)]
    internal struct Padding
    {
        private byte _first;
    }
}

/// <summary><c>struct kvm_sync_regs</c>: what KVM_RUN takes and gives without a call for each part.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmSyncRegs
{
    internal KvmRegs Regs;
    internal KvmSregs Sregs;
    internal KvmVcpuEvents Events;
}

/// <summary><c>struct kvm_debugregs</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmDebugregs
{
    private const ulong Dr6AtReset = 0xFFFF_0FF0;
    private const ulong Dr7AtReset = 0x400;

    internal Registers Db;
    internal ulong Dr6;
    internal ulong Dr7;
    internal ulong Flags;
    internal Padding Reserved;

    /// <summary>Whether these are the values of a CPU that was just reset.</summary>
    internal readonly bool IsReset => Dr6 == Dr6AtReset && Dr7 == Dr7AtReset && !((ReadOnlySpan<ulong>)Db).ContainsAnyExcept(0UL);

    [InlineArray(4)]
    internal struct Registers
    {
        private ulong _first;
    }

    [InlineArray(9)]
    internal struct Padding
    {
        private ulong _first;
    }
}

/// <summary><c>struct kvm_msr_entry</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmMsrEntry
{
    internal uint Index;
    internal uint Reserved;
    internal ulong Data;
}

/// <summary><c>struct kvm_msrs</c> with room for two entries, which is what a flat guest has beyond its other registers.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmMsrs
{
    internal uint NMsrs;
    internal uint Pad;
    internal KvmMsrEntry First;
    internal KvmMsrEntry Second;
}

/// <summary><c>struct kvm_cpuid_entry2</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmCpuidEntry2
{
    internal uint Function;
    internal uint Index;
    internal uint Flags;
    internal uint Eax;
    internal uint Ebx;
    internal uint Ecx;
    internal uint Edx;
    internal Padding Pad;

    [InlineArray(3)]
    internal struct Padding
    {
        private uint _first;
    }
}

/// <summary><c>struct kvm_cpuid2</c> with room for <see cref="Capacity"/> entries.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmCpuid2
{
    internal const int Capacity = 256;

    internal uint Nent;
    internal uint Padding;
    internal EntryArray Entries;

    [InlineArray(Capacity)]
    internal struct EntryArray
    {
        private KvmCpuidEntry2 _first;
    }
}

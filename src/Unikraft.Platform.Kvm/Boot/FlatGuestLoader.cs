using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Boot;

/// <summary>Puts a flat guest into memory and its vCPUs into the state of entry that docs/guest-abi.md promises.</summary>
internal static class FlatGuestLoader
{
    private const ulong Cr0 = 0x8005_0033;
    private const ulong Cr4PhysicalAddressExtension = 1 << 5;
    private const ulong Cr4Sse = 1 << 9 | 1 << 10;
    private const ulong Cr4FsGsBase = 1 << 16;
    private const ulong Cr4Xsave = 1 << 18;
    private const ulong Efer = 1 << 8 | 1 << 10 | 1 << 11;
    private const ulong InitialFlags = 2;
    private const uint Lstar = 0xC000_0082;
    private const byte CodeAccessed = 11;
    private const byte DataAccessed = 3;
    private const byte BusyTaskSegment = 11;
    private const byte UserLevel = 3;

    internal static void Load(GuestMemory memory, ElfImage image, FlatGuestLayout layout, GuestStrings strings, Guid uuid, string name)
    {
        foreach (ElfSegment segment in image.Segments)
        {
            memory.Write(segment.Address, segment.Content.Span);
        }

        KernelStubs.Install(memory, layout.Vcpus);
        InfoPage.Write(memory, layout, strings);
        InfoPage.WriteIdentity(memory, uuid);
        MapEverything(memory, image, layout, name);
    }

    /// <summary>Brings a new vCPU to the guest's entry point.</summary>
    internal static void Enter(KvmVcpu vcpu, int index, ElfImage image, FlatGuestLayout layout)
    {
        vcpu.Get(out KvmSyncRegs registers);
        ref KvmSregs sregs = ref registers.Sregs;
        sregs.Cs = Segment(KernelStubs.UserCodeSelector, CodeAccessed) with { L = 1, Db = 0 };
        sregs.Ds = sregs.Es = sregs.Fs = sregs.Gs = sregs.Ss = Segment(KernelStubs.UserDataSelector, DataAccessed);
        sregs.Tr = new KvmSegment
        {
            Base = KernelStubs.TaskSegment(index),
            Limit = KernelStubs.TaskSegmentSize - 1,
            Selector = KernelStubs.TaskSelector,
            Type = BusyTaskSegment,
            Present = 1,
        };
        sregs.Ldt = new KvmSegment { Unusable = 1 };
        sregs.Gdt = new KvmDtable { Base = (ulong)FlatGuestLayout.GdtAddress, Limit = KernelStubs.GdtSize - 1 };
        sregs.Idt = new KvmDtable
        {
            Base = (ulong)FlatGuestLayout.IdtAddress,
            Limit = KernelStubs.ExceptionVectors * KernelStubs.GateSize - 1,
        };
        ulong xcr0 = vcpu.Xcr0;
        sregs.Cr0 = Cr0;
        sregs.Cr3 = (ulong)FlatGuestLayout.PageTablesAddress;
        sregs.Cr4 = Cr4PhysicalAddressExtension | Cr4Sse | Cr4FsGsBase | (xcr0 != 0 ? Cr4Xsave : 0);
        sregs.Efer = Efer;
        registers.Regs = new KvmRegs
        {
            Rip = image.EntryPoint,
            Rsp = (ulong)layout.StackTop(index),
            Rdi = (ulong)FlatGuestLayout.InfoAddress,
            Rsi = (ulong)index,
            Rflags = InitialFlags,
        };
        vcpu.Set(in registers);
        if (xcr0 != 0)
        {
            vcpu.SetXcr0(xcr0);
        }

        KvmMsrs msrs = new() { NMsrs = 1, First = new KvmMsrEntry { Index = Lstar, Data = (ulong)FlatGuestLayout.SyscallLandingAddress } };
        vcpu.Set(ref msrs);
    }

    private static void MapEverything(GuestMemory memory, ElfImage image, FlatGuestLayout layout, string name)
    {
        PageTables tables = new(memory, name);
        MapIdentity(tables, FlatGuestLayout.GdtAddress, FlatGuestLayout.StubsAddress, PageAccess.Write);
        MapIdentity(tables, FlatGuestLayout.StubsAddress, FlatGuestLayout.KernelStacksAddress, PageAccess.Execute);
        MapIdentity(tables, FlatGuestLayout.KernelStacksAddress, FlatGuestLayout.PageTablesEnd, PageAccess.Write);
        MapIdentity(tables, FlatGuestLayout.InfoAddress, FlatGuestLayout.StringsEnd, PageAccess.User);
        MapIdentity(
            tables,
            FlatGuestLayout.CallBlocksAddress,
            FlatGuestLayout.SyscallLandingAddress,
            PageAccess.User | PageAccess.Write);
        MapIdentity(
            tables,
            FlatGuestLayout.SyscallLandingAddress,
            FlatGuestLayout.DeviceVirtualAddress,
            PageAccess.User | PageAccess.Execute);
        tables.Map(
            FlatGuestLayout.DeviceVirtualAddress,
            FlatGuestLayout.DevicePhysicalAddress,
            PageSize.Bytes,
            PageAccess.User | PageAccess.Write);
        tables.Map(
            FlatGuestLayout.DisksVirtualAddress,
            FlatGuestLayout.DisksPhysicalAddress,
            FlatGuestLayout.DisksLength,
            PageAccess.User | PageAccess.Write);
        tables.Map(FlatGuestLayout.FaultVirtualAddress, FlatGuestLayout.FaultPhysicalAddress, PageSize.Bytes, PageAccess.Write);

        foreach (ElfSegment segment in image.Segments)
        {
            MapIdentity(
                tables,
                segment.Address & -PageSize.Bytes,
                PageSize.RoundUp(segment.End),
                PageAccess.User
                    | (segment.IsWritable ? PageAccess.Write : PageAccess.Read)
                    | (segment.IsExecutable ? PageAccess.Execute : PageAccess.Read));
        }

        for (int vcpu = 0; vcpu < layout.Vcpus; vcpu++)
        {
            long top = layout.StackTop(vcpu);
            MapIdentity(tables, top - FlatGuestLayout.StackSize, top, PageAccess.User | PageAccess.Write);
        }

        MapIdentity(tables, layout.HeapStart, layout.MemorySize, PageAccess.User | PageAccess.Write);
    }

    private static void MapIdentity(PageTables tables, long start, long end, PageAccess access) =>
        tables.Map(start, (ulong)start, end - start, access);

    private static KvmSegment Segment(ushort selector, byte type) => new()
    {
        Limit = uint.MaxValue,
        Selector = selector,
        Type = type,
        Present = 1,
        Dpl = UserLevel,
        Db = 1,
        S = 1,
        G = 1,
    };
}

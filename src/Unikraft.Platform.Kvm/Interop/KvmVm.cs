using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>A KVM virtual machine, the dirty pages of which are logged from the beginning.</summary>
internal sealed class KvmVm : IDisposable
{
    private readonly KvmDevice _device;
    private readonly DescriptorHandle _descriptor;

    internal KvmVm(KvmDevice device, DescriptorHandle descriptor)
    {
        _device = device;
        _descriptor = descriptor;
        try
        {
            // Reading the log must not re-protect pages: that part is left to KVM_CLEAR_DIRTY_LOG, while the guest runs.
            KvmEnableCap capability = new() { Cap = KvmConstants.CapManualDirtyLogProtect2 };
            capability.Args[0] = KvmConstants.DirtyLogManualProtectEnable;
            HostError.Check(
                KvmIoctl.Call(_descriptor, KvmConstants.EnableCap, ref capability),
                "KVM_ENABLE_CAP(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)");
        }
        catch
        {
            _descriptor.Dispose();
            throw;
        }
    }

    /// <summary>Puts guest memory at guest physical address 0. It must stay mapped for as long as a vCPU can run.</summary>
    internal void SetMemory(GuestMemory memory)
    {
        foreach (MemorySlot slot in memory.Slots)
        {
            long start = (long)slot.FirstPage << PageSize.Shift;
            KvmUserspaceMemoryRegion region = new()
            {
                Slot = (uint)slot.Id,
                Flags = KvmConstants.MemLogDirtyPages,
                GuestPhysAddr = (ulong)start,
                MemorySize = (ulong)slot.Pages << PageSize.Shift,
                UserspaceAddr = (ulong)(memory.DangerousGetHandle() + (nint)start),
            };
            HostError.Check(
                KvmIoctl.Call(_descriptor, KvmConstants.SetUserMemoryRegion, ref region),
                "KVM_SET_USER_MEMORY_REGION");
        }
    }

    /// <summary>Puts a part of guest memory at a guest physical address. It must stay mapped for as long as a vCPU can run.</summary>
    internal void SetMemory(GuestMemory memory, uint slot, long guestAddress, long offset, long size)
    {
        KvmUserspaceMemoryRegion region = new()
        {
            Slot = slot,
            Flags = KvmConstants.MemLogDirtyPages,
            GuestPhysAddr = (ulong)guestAddress,
            MemorySize = (ulong)size,
            UserspaceAddr = (ulong)(memory.DangerousGetHandle() + (nint)offset),
        };
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetUserMemoryRegion, ref region), "KVM_SET_USER_MEMORY_REGION");
    }

    /// <summary>Creates the interrupt controllers in the kernel: local APICs, I/O APIC and PICs; and the PIT. Before the first vCPU, and after the memory.</summary>
    /// <param name="reservedAddress">The guest physical address of four pages that hardware without real mode needs for itself.</param>
    internal void CreateInterruptControllers(long reservedAddress)
    {
        ulong identityMap = (ulong)reservedAddress;
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetIdentityMapAddr, ref identityMap), "KVM_SET_IDENTITY_MAP_ADDR");
        HostError.Check(
            KvmIoctl.Call(_descriptor, KvmConstants.SetTssAddr, (nint)(reservedAddress + PageSize.Bytes)),
            "KVM_SET_TSS_ADDR");
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.CreateIrqchip, 0), "KVM_CREATE_IRQCHIP");

        // With the port of the speaker, by which its third channel is read.
        KvmPitConfig timer = new() { Flags = KvmConstants.PitSpeakerDummy };
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.CreatePit2, ref timer), "KVM_CREATE_PIT2");
    }

    internal void Get(ref KvmPitState2 timer) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetPit2, ref timer), "KVM_GET_PIT2");

    internal void Set(ref KvmPitState2 timer) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetPit2, ref timer), "KVM_SET_PIT2");

    /// <summary>Gets the state of an interrupt controller that all vCPUs share, by the number in <see cref="KvmIrqchip.ChipId"/>.</summary>
    internal void Get(ref KvmIrqchip chip) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetIrqchip, ref chip), "KVM_GET_IRQCHIP");

    internal void Set(ref KvmIrqchip chip) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetIrqchip, ref chip), "KVM_SET_IRQCHIP");

    /// <summary>Gets the paravirtual clock, in nanoseconds since the machine was made.</summary>
    internal ulong GetClock()
    {
        KvmClockData data = default;
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetClock, ref data), "KVM_GET_CLOCK");
        return data.Clock;
    }

    internal void SetClock(ulong clock)
    {
        KvmClockData data = new() { Clock = clock };
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetClock, ref data), "KVM_SET_CLOCK");
    }

    /// <summary>Raises or lowers an input of the interrupt controllers.</summary>
    internal void SetInterruptLine(uint number, bool isHigh)
    {
        KvmIrqLevel level = new() { Irq = number, Level = isHigh ? 1u : 0u };
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.IrqLine, ref level), "KVM_IRQ_LINE");
    }

    /// <summary>Creates a vCPU of a flat guest. To be called on the thread that is going to run it.</summary>
    internal KvmVcpu CreateVcpu(int index) => CreateVcpu(index, vcpu => vcpu.Identify((uint)index));

    /// <summary>Creates a vCPU of a flat guest and goes through what takes time only once.</summary>
    internal KvmVcpu CreatePreparedVcpu(int index) => CreateVcpu(index, vcpu =>
    {
        vcpu.Identify((uint)index);
        vcpu.Prepare();
    });

    /// <summary>Creates a vCPU. To be called on the thread that is going to run it.</summary>
    /// <param name="index">The number of the vCPU, from 0.</param>
    /// <param name="identify">Sets what CPUID answers.</param>
    internal KvmVcpu CreateVcpu(int index, Action<KvmVcpu> identify)
    {
        DescriptorHandle vcpu = new(HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.CreateVcpu, index), "KVM_CREATE_VCPU"));
        return new KvmVcpu(_device, vcpu, identify);
    }

    /// <summary>Reads the log of the pages of a slot that vCPUs wrote. Nothing is cleared.</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="bitmap">Where to put it; what was there is replaced.</param>
    internal unsafe void GetDirtyLog(MemorySlot slot, PageBitmap bitmap)
    {
        fixed (ulong* first = bitmap.WordsOf(slot.FirstPage, slot.Pages))
        {
            KvmDirtyLog log = new() { Slot = (uint)slot.Id, DirtyBitmap = (nint)first };
            HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetDirtyLog, ref log), "KVM_GET_DIRTY_LOG");
        }
    }

    /// <summary>Clears pages from the log of a slot and protects them, so that the next write to each is logged again.</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="bitmap">The pages to clear.</param>
    /// <param name="firstPage">The first page to look at, from the beginning of the slot. A multiple of 64.</param>
    /// <param name="pages">How many to look at: a multiple of 64, unless the range ends with the slot.</param>
    internal unsafe void ClearDirtyLog(MemorySlot slot, PageBitmap bitmap, int firstPage, int pages)
    {
        fixed (ulong* first = bitmap.WordsOf(slot.FirstPage + firstPage, pages))
        {
            KvmClearDirtyLog log = new()
            {
                Slot = (uint)slot.Id,
                FirstPage = (ulong)firstPage,
                NumPages = (uint)pages,
                DirtyBitmap = (nint)first,
            };
            HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.ClearDirtyLog, ref log), "KVM_CLEAR_DIRTY_LOG");
        }
    }

    public void Dispose() => _descriptor.Dispose();
}

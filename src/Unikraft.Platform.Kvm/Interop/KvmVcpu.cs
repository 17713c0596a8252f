using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>A KVM vCPU. All calls but the one setting <see cref="KvmRunPage.ImmediateExit"/> belong to the thread that created it.</summary>
internal sealed class KvmVcpu : IDisposable
{
    private const uint CpuidFeatures = 1;
    private const int InitialApicIdShift = 24;
    private const uint CpuidTopology = 0xB;
    private const uint CpuidTopologyV2 = 0x1F;
    private const uint CpuidXsave = 0xD;
    private const uint Xcr0Supported = 0b111;

    private readonly KvmDevice _device;
    private readonly DescriptorHandle _descriptor;

    /// <param name="device">The device that the VM comes from.</param>
    /// <param name="descriptor">The vCPU; owned from now on, also when the constructor throws.</param>
    /// <param name="identify">Sets what CPUID answers.</param>
    internal KvmVcpu(KvmDevice device, DescriptorHandle descriptor, Action<KvmVcpu> identify)
    {
        _device = device;
        _descriptor = descriptor;
        try
        {
            RunPage = new KvmRunPage(descriptor, device.RunPageSize);
            identify(this);
        }
        catch
        {
            RunPage?.Dispose();
            descriptor.Dispose();
            throw;
        }
    }

    internal KvmRunPage RunPage { get; }

    /// <summary>The value of XCR0 that enables x87, SSE and AVX as far as the host has them.</summary>
    internal ulong Xcr0
    {
        get
        {
            foreach (ref readonly KvmCpuidEntry2 entry in Entries(in _device.SupportedCpuid))
            {
                if (entry is { Function: CpuidXsave, Index: 0 })
                {
                    return entry.Eax & Xcr0Supported;
                }
            }

            return 0;
        }
    }

    /// <summary>Runs the guest until it leaves for a reason, or a kick arrives.</summary>
    /// <returns>False when the call was interrupted.</returns>
    internal bool Run()
    {
        if (KvmIoctl.Call(_descriptor, KvmConstants.Run, 0) >= 0)
        {
            return true;
        }

        return Marshal.GetLastPInvokeError() is Libc.ErrnoInterrupted or Libc.ErrnoAgain ? false : throw HostError.Last("KVM_RUN");
    }

    /// <summary>Sets what CPUID answers.</summary>
    internal void Set(ref KvmCpuid2 cpuid) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetCpuid2, ref cpuid), "KVM_SET_CPUID2");

    /// <summary>Lets CPUID answer all that KVM supports, for a flat guest.</summary>
    internal void Identify(uint apicId)
    {
        KvmCpuid2 cpuid = _device.SupportedCpuid;
        foreach (ref KvmCpuidEntry2 entry in ((Span<KvmCpuidEntry2>)cpuid.Entries)[..(int)cpuid.Nent])
        {
            switch (entry.Function)
            {
                case CpuidFeatures:
                    entry.Ebx = entry.Ebx & (1u << InitialApicIdShift) - 1 | apicId << InitialApicIdShift;
                    break;
                case CpuidTopology or CpuidTopologyV2:
                    entry.Edx = apicId;
                    break;
            }
        }

        Set(ref cpuid);
    }

    internal void InjectNmi() => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.Nmi, 0), "KVM_NMI");

    internal int GetTscKhz() => Math.Max(0, KvmIoctl.Call(_descriptor, KvmConstants.GetTscKhz, 0));

    internal void Get(ref KvmRegs regs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetRegs, ref regs), "KVM_GET_REGS");

    internal void Set(ref KvmRegs regs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetRegs, ref regs), "KVM_SET_REGS");

    internal void Get(ref KvmSregs sregs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetSregs, ref sregs), "KVM_GET_SREGS");

    internal void Set(ref KvmSregs sregs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetSregs, ref sregs), "KVM_SET_SREGS");

    internal void Get(ref KvmXsave xsave) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetXsave, ref xsave), "KVM_GET_XSAVE");

    internal void Set(ref KvmXsave xsave) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetXsave, ref xsave), "KVM_SET_XSAVE");

    internal void Get(ref KvmXcrs xcrs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetXcrs, ref xcrs), "KVM_GET_XCRS");

    internal void Set(ref KvmXcrs xcrs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetXcrs, ref xcrs), "KVM_SET_XCRS");

    internal void Get(ref KvmVcpuEvents events) =>
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetVcpuEvents, ref events), "KVM_GET_VCPU_EVENTS");

    internal void Set(ref KvmVcpuEvents events) =>
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetVcpuEvents, ref events), "KVM_SET_VCPU_EVENTS");

    internal void Get(ref KvmDebugregs registers) =>
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetDebugregs, ref registers), "KVM_GET_DEBUGREGS");

    internal void Set(ref KvmDebugregs registers) =>
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetDebugregs, ref registers), "KVM_SET_DEBUGREGS");

    internal void Get(ref KvmMsrs msrs)
    {
        int done = HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetMsrs, ref msrs), "KVM_GET_MSRS");
        if (done != msrs.NMsrs)
        {
            throw new HypervisorException($"KVM does not let MSR 0x{(done == 0 ? msrs.First : msrs.Second).Index:x} be read.");
        }
    }

    internal void SetMsr(uint index, ulong value)
    {
        KvmMsrs msrs = new() { NMsrs = 1, First = new KvmMsrEntry { Index = index, Data = value } };
        if (HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetMsrs, ref msrs), "KVM_SET_MSRS") != 1)
        {
            throw new HypervisorException($"KVM does not let MSR 0x{index:x} be set to 0x{value:x}.");
        }
    }

    public void Dispose()
    {
        RunPage.Dispose();
        _descriptor.Dispose();
    }

    private static ReadOnlySpan<KvmCpuidEntry2> Entries(ref readonly KvmCpuid2 cpuid) =>
        ((ReadOnlySpan<KvmCpuidEntry2>)cpuid.Entries)[..(int)cpuid.Nent];
}

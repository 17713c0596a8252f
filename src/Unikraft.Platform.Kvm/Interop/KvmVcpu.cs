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

    /// <summary>What <see cref="SetXcr0"/> set; 0, which no CPU has, when it is not known.</summary>
    private ulong _xcr0;

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

    /// <summary>Goes through KVM_RUN without entering the guest: what KVM does only the first time is then done.</summary>
    internal void Prepare()
    {
        SetXcr0(Xcr0);
        RunPage.RequestRegisters();
        RunWithoutEntering();
    }

    /// <summary>Gets the registers: those that the last KVM_RUN left if it was asked to, which takes no call.</summary>
    internal void Get(out KvmSyncRegs registers)
    {
        if (!RunPage.TryTakeRegisters(out registers))
        {
            RunPage.RequestRegisters();
            RunWithoutEntering();
            _ = RunPage.TryTakeRegisters(out registers);
        }
    }

    /// <summary>Sets the registers, at the cost of one call instead of three.</summary>
    internal void Set(in KvmSyncRegs registers)
    {
        RunPage.PutRegisters(registers);
        RunWithoutEntering();
        RunPage.ForgetRegisters();
    }

    internal void InjectNmi() => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.Nmi, 0), "KVM_NMI");

    /// <summary>Gets the frequency of the time stamp counter in kHz; 0 when KVM does not tell.</summary>
    internal int GetTscKhz() => Math.Max(0, KvmIoctl.Call(_descriptor, KvmConstants.GetTscKhz, 0));

    /// <summary>Makes the time stamp counter run at another frequency. Before it is set.</summary>
    internal void SetTscKhz(int khz) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetTscKhz, khz), "KVM_SET_TSC_KHZ");

    internal void Get(ref KvmRegs regs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetRegs, ref regs), "KVM_GET_REGS");

    internal void Set(ref KvmRegs regs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetRegs, ref regs), "KVM_SET_REGS");

    internal void Get(ref KvmSregs sregs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetSregs, ref sregs), "KVM_GET_SREGS");

    internal void Set(ref KvmSregs sregs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetSregs, ref sregs), "KVM_SET_SREGS");

    internal void Get(ref KvmXsave xsave) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetXsave, ref xsave), "KVM_GET_XSAVE");

    internal void Set(ref KvmXsave xsave) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetXsave, ref xsave), "KVM_SET_XSAVE");

    internal void Get(ref KvmXcrs xcrs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetXcrs, ref xcrs), "KVM_GET_XCRS");

    private void Set(ref KvmXcrs xcrs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetXcrs, ref xcrs), "KVM_SET_XCRS");

    internal void Get(ref KvmDebugregs registers) =>
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetDebugregs, ref registers), "KVM_GET_DEBUGREGS");

    internal void Set(ref KvmDebugregs registers) =>
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetDebugregs, ref registers), "KVM_SET_DEBUGREGS");

    /// <summary>Gets MSRs.</summary>
    internal void Get(ref KvmMsrs msrs)
    {
        int done = HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetMsrs, ref msrs), "KVM_GET_MSRS");
        if (done != msrs.NMsrs)
        {
            throw new HypervisorException($"KVM does not let MSR 0x{(done == 0 ? msrs.First : msrs.Second).Index:x} be read.");
        }
    }

    /// <summary>Sets MSRs.</summary>
    internal void Set(ref KvmMsrs msrs)
    {
        int done = HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetMsrs, ref msrs), "KVM_SET_MSRS");
        if (done != msrs.NMsrs)
        {
            KvmMsrEntry refused = done == 0 ? msrs.First : msrs.Second;
            throw new HypervisorException($"KVM does not let MSR 0x{refused.Index:x} be set to 0x{refused.Data:x}.");
        }
    }

    internal void Get(ref KvmLapicState lapic) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetLapic, ref lapic), "KVM_GET_LAPIC");

    internal void Set(ref KvmLapicState lapic) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetLapic, ref lapic), "KVM_SET_LAPIC");

    internal void Get(ref KvmMpState state) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetMpState, ref state), "KVM_GET_MP_STATE");

    internal void Set(ref KvmMpState state) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetMpState, ref state), "KVM_SET_MP_STATE");

    internal void Get(ref KvmVcpuEvents events) =>
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetVcpuEvents, ref events), "KVM_GET_VCPU_EVENTS");

    internal void Set(ref KvmVcpuEvents events) =>
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetVcpuEvents, ref events), "KVM_SET_VCPU_EVENTS");

    /// <summary>Gets MSRs, up to the first that cannot be read.</summary>
    /// <returns>How many could.</returns>
    internal int Get(ref KvmAllMsrs msrs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetMsrs, ref msrs), "KVM_GET_MSRS");

    /// <summary>Sets MSRs, up to the first that is refused.</summary>
    /// <returns>How many were set.</returns>
    internal int Set(ref KvmAllMsrs msrs) => HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.SetMsrs, ref msrs), "KVM_SET_MSRS");

    /// <summary>Lets a guest that uses the paravirtual clock know that it stood still, so that its watchdogs do not bark.</summary>
    internal void TellStopped()
    {
        if (KvmIoctl.Call(_descriptor, KvmConstants.KvmclockCtrl, 0) < 0 && Marshal.GetLastPInvokeError() != Libc.ErrnoInvalid)
        {
            throw HostError.Last("KVM_KVMCLOCK_CTRL");
        }
    }

    /// <summary>Sets XCR0, unless it has the value already.</summary>
    internal void SetXcr0(ulong value)
    {
        if (value != _xcr0)
        {
            KvmXcrs xcrs = new() { NrXcrs = 1 };
            xcrs.Xcrs[0].Value = value;
            Set(ref xcrs);
            _xcr0 = value;
        }
    }

    public void Dispose()
    {
        RunPage.Dispose();
        _descriptor.Dispose();
    }

    /// <summary>To be called with no exit pending: KVM would complete it.</summary>
    private void RunWithoutEntering()
    {
        RunPage.ImmediateExit = true;
        _ = Run();
        RunPage.ImmediateExit = false;

        // Against the order of the kicker, as whenever the flag is taken back: who does it looks for attention afterwards.
        Interlocked.MemoryBarrier();
    }

    private static ReadOnlySpan<KvmCpuidEntry2> Entries(ref readonly KvmCpuid2 cpuid) =>
        ((ReadOnlySpan<KvmCpuidEntry2>)cpuid.Entries)[..(int)cpuid.Nent];
}

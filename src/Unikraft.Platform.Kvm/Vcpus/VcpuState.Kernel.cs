using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

internal sealed partial class VcpuState
{
    /// <summary>What there is beyond the registers of a flat guest; null when it is one.</summary>
    internal KernelRegisters? Kernel { get; init; }

    /// <summary>
    /// Takes the state of a vCPU of a kernel, when all of them stand still: until then they send one another interrupts. Not on the thread of the vCPU.
    /// </summary>
    internal void SaveStanding()
    {
        KernelRegisters kernel = Kernel!;
        KvmVcpu vcpu = kernel.Standing;
        vcpu.Get(ref _events);
        vcpu.Get(ref _regs);
        vcpu.Get(ref _sregs);
        vcpu.Get(ref _xcrs);
        vcpu.Get(ref _xsave);
        vcpu.Get(ref _debugregs);
        kernel.Save();
    }

    /// <summary>Gives the state to a new vCPU with the same CPUID. The order matters: modes before registers, registers before events.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="tsc">What the time stamp counter has become.</param>
    internal void RestoreKernel(KvmVcpu vcpu, ulong tsc)
    {
        // KVM wants references; the state itself is shared by all restored machines and must stay as it is.
        KvmSregs sregs = _sregs;
        vcpu.Set(ref sregs);
        vcpu.SetXcr0(_xcrs.Xcrs[0].Value);
        KvmXsave xsave = _xsave;
        vcpu.Set(ref xsave);
        Kernel!.Restore(vcpu, tsc);
        KvmDebugregs debugregs = _debugregs;
        vcpu.Set(ref debugregs);
        KvmRegs regs = _regs;
        vcpu.Set(ref regs);
        KvmVcpuEvents events = _events;
        vcpu.Set(ref events);
        vcpu.TellStopped();
    }
}

using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>The complete state of a vCPU of a flat guest. Allocated before a cut, filled in within it.</summary>
internal sealed partial class VcpuState
{
    private const uint TimeStampCounter = 0x10;
    private const uint Lstar = 0xC000_0082;

    private KvmRegs _regs;
    private KvmSregs _sregs;
    private KvmXsave _xsave;
    private KvmXcrs _xcrs;
    private KvmVcpuEvents _events;
    private KvmDebugregs _debugregs;
    private KvmMsrs _msrs = new() { NMsrs = 2, First = new KvmMsrEntry { Index = Lstar }, Second = new KvmMsrEntry { Index = TimeStampCounter } };

    /// <summary>The call that the vCPU sleeps in, if it does.</summary>
    internal VcpuWait? Wait { get; private set; }

    /// <summary>Whether the wake event was pending. Known only when all vCPUs stand still, and set then.</summary>
    internal bool IsWakePending { get; set; }

    /// <summary>Takes the state. On the thread of the vCPU, with no exit of it pending.</summary>
    internal void Save(KvmVcpu vcpu, VcpuWait? wait)
    {
        vcpu.Get(ref _regs);
        vcpu.Get(ref _sregs);
        vcpu.Get(ref _xsave);
        vcpu.Get(ref _xcrs);
        vcpu.Get(ref _events);
        vcpu.Get(ref _debugregs);
        vcpu.Get(ref _msrs);
        Wait = wait;
    }

    /// <summary>Gives the state to a new vCPU. The order matters: paging before extended state, all of it before events.</summary>
    internal void Restore(KvmVcpu vcpu)
    {
        // KVM wants references; the state itself is shared by all restored machines and must stay as it is.
        KvmSregs sregs = _sregs;
        vcpu.Set(ref sregs);
        KvmXcrs xcrs = _xcrs;
        vcpu.Set(ref xcrs);
        KvmXsave xsave = _xsave;
        vcpu.Set(ref xsave);
        KvmDebugregs debugregs = _debugregs;
        vcpu.Set(ref debugregs);
        vcpu.SetMsr(Lstar, _msrs.First.Data);
        vcpu.SetMsr(TimeStampCounter, _msrs.Second.Data);
        KvmRegs regs = _regs;
        vcpu.Set(ref regs);
        KvmVcpuEvents events = _events;
        vcpu.Set(ref events);
    }
}

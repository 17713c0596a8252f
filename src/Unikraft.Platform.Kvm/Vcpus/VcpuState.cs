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
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="wait">The call it sleeps in.</param>
    /// <param name="earlier">
    /// A state that it had before, if one is known. What a guest at ring 3 cannot change is the same as then, and each call to KVM takes 5 us while
    /// the guest stands still.
    /// </param>
    internal void Save(KvmVcpu vcpu, VcpuWait? wait, VcpuState? earlier)
    {
        if (Kernel is { } kernel)
        {
            kernel.Standing = vcpu;
            return;
        }

        vcpu.Get(out KvmSyncRegs registers);
        (_regs, _sregs, _events) = (registers.Regs, registers.Sregs, registers.Events);
        vcpu.Get(ref _xsave);
        if (earlier is null)
        {
            vcpu.Get(ref _xcrs);
            vcpu.Get(ref _debugregs);
            vcpu.Get(ref _msrs);
        }
        else
        {
            (_xcrs, _debugregs, _msrs) = (earlier._xcrs, earlier._debugregs, earlier._msrs);
            KvmMsrs counter = new() { NMsrs = 1, First = _msrs.Second };
            vcpu.Get(ref counter);
            _msrs.Second = counter.First;
        }

        Wait = wait;
    }

    /// <summary>Gives the state to a new vCPU. The order matters: paging before extended state.</summary>
    internal void Restore(KvmVcpu vcpu)
    {
        // KVM wants references; the state itself is shared by all restored machines and must stay as it is.
        vcpu.Set(new KvmSyncRegs { Regs = _regs, Sregs = _sregs, Events = _events });
        vcpu.SetXcr0(_xcrs.Xcrs[0].Value);
        KvmXsave xsave = _xsave;
        vcpu.Set(ref xsave);
        if (!_debugregs.IsReset)
        {
            KvmDebugregs debugregs = _debugregs;
            vcpu.Set(ref debugregs);
        }

        KvmMsrs msrs = _msrs;
        vcpu.Set(ref msrs);
    }
}

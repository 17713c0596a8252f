using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>What depends on the kind of guest when one of its vCPUs leaves. Called on the thread of that vCPU.</summary>
internal interface IVcpuGuest
{
    /// <summary>The devices in port space; <see langword="null"/> when the guest cannot get there.</summary>
    MmioBus? Ports { get; }

    /// <summary>Ends the sleep of a vCPU.</summary>
    void FinishWait(int vcpu, uint events);

    /// <summary>Ends the request of a vCPU.</summary>
    void FinishRequest(int vcpu, VcpuWait request, RequestAnswer answer);

    /// <summary>No handler could be entered for a CPU exception.</summary>
    void OnTripleFault();

    /// <summary>KVM has to emulate an instruction that it does not know.</summary>
    void OnEmulationFailure(IMmioInitiator vcpu, in KvmRegs regs);
}

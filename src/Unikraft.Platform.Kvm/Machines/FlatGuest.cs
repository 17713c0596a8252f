using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>A flat guest: it sleeps in calls to the platform device, and its faults are those of its app.</summary>
internal sealed class FlatGuest(PlatformDevice platform, FaultDevice faults, IMachineControl control) : IVcpuGuest, IGuestState
{
    public MmioBus? Ports => null;

    public void FinishWait(int vcpu, uint events) => platform.FinishWait(vcpu, events);

    public void FinishRequest(int vcpu, VcpuWait request, RequestAnswer answer) =>
        platform.FinishRequest(vcpu, request.Call, request.Address, answer);

    public VcpuState NewVcpuState(int index) => new();

    public IGuestCut NewCut(VcpuState[] vcpus) => new FlatCut(platform);

    public void OnTripleFault() => control.End(new MachineExit.TripleFault(faults.TripleFault));

    public void OnEmulationFailure(IMmioInitiator vcpu, in KvmRegs regs) => faults.OnEmulationFailure(vcpu, regs.Rip, regs.Rsp);

    private sealed class FlatCut(PlatformDevice platform) : IGuestCut
    {
        private readonly PlatformDeviceCut _room = new();

        public void Take() => platform.Save(_room);

        public PlatformDeviceState ToDevice() => _room.ToState();

        public KernelState? ToKernel() => null;

        public void Dispose() => _room.Dispose();
    }
}

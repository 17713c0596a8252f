using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Machines.Kernels;

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>The room for the state of the devices.</summary>
internal interface IGuestCut : IDisposable
{
    /// <summary>Takes the state. All vCPUs stand still.</summary>
    void Take();

    /// <summary>What was taken of the platform device.</summary>
    PlatformDeviceState ToDevice();

    /// <summary>What was taken of the other devices of a kernel; null when there is none.</summary>
    KernelState? ToKernel();
}

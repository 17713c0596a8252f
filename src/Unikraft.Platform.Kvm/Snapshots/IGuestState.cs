using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>What a snapshot takes of a machine besides memory and disks; depends on the kind of guest.</summary>
internal interface IGuestState
{
    /// <summary>Makes room for the state of a vCPU.</summary>
    VcpuState NewVcpuState(int index);

    /// <summary>Makes room for the state of the devices.</summary>
    /// <param name="vcpus">Where the vCPUs have left their states.</param>
    IGuestCut NewCut(VcpuState[] vcpus);
}

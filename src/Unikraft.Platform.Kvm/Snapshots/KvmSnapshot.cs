using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>The state of a KVM machine at one moment: a chain of memory layers, the vCPUs, the platform device.</summary>
internal sealed class KvmSnapshot(
    PageMap memory,
    FlatGuestLayout layout,
    IReadOnlyList<VcpuState> vcpus,
    PlatformDeviceState device,
    TimeSpan pause) : IMachineSnapshot
{
    public long StoredBytes => Memory.OwnBytes;

    public int Depth => Memory.Depth;

    public TimeSpan Pause { get; } = pause;

    internal PageMap Memory { get; } = memory;

    internal FlatGuestLayout Layout { get; } = layout;

    internal IReadOnlyList<VcpuState> Vcpus { get; } = vcpus;

    internal PlatformDeviceState Device { get; } = device;

    public void Dispose() => Memory.Dispose();
}

using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>The state of a KVM machine at one moment: a chain of memory layers, the vCPUs, the platform device.</summary>
internal sealed class KvmSnapshot : IMachineSnapshot
{
    private readonly SharedPageMap _memory;

    /// <param name="memory">The memory, which the snapshot takes over.</param>
    /// <param name="layout">The layout of the memory.</param>
    /// <param name="vcpus">The state of the vCPUs.</param>
    /// <param name="device">The state of the platform device.</param>
    /// <param name="pause">The longest that the machine stood still at a time.</param>
    /// <param name="throttled">How long it was held before the cut.</param>
    /// <param name="disks">The state of the disks, by slot.</param>
    internal KvmSnapshot(
        PageMap memory,
        FlatGuestLayout layout,
        IReadOnlyList<VcpuState> vcpus,
        PlatformDeviceState device,
        TimeSpan pause,
        TimeSpan throttled,
        IReadOnlyList<DiskState> disks)
    {
        _memory = new SharedPageMap(memory);
        StoredBytes = memory.OwnBytes;
        Depth = memory.Depth;
        Layout = layout;
        Vcpus = vcpus;
        Device = device;
        Pause = pause;
        Throttled = throttled;
        Disks = disks;
    }

    public long StoredBytes { get; }

    public int Depth { get; }

    public TimeSpan Pause { get; }

    public TimeSpan Throttled { get; }

    internal FlatGuestLayout Layout { get; }

    internal IReadOnlyList<VcpuState> Vcpus { get; }

    internal PlatformDeviceState Device { get; }

    /// <summary>What there is beyond a flat guest; null when it is one.</summary>
    internal KernelState? Kernel { get; init; }

    internal IReadOnlyList<DiskState> Disks { get; }

    /// <summary>The file that it was read from; null when it was taken here.</summary>
    internal string? Path { get; init; }

    /// <summary>The memory, for the caller to hold and dispose of.</summary>
    /// <exception cref="ObjectDisposedException">The snapshot was disposed of.</exception>
    internal PageMap ShareMemory() => _memory.Share();

    /// <inheritdoc cref="ShareMemory"/>
    /// <returns><see langword="null"/> when the snapshot was disposed of.</returns>
    internal PageMap? TryShareMemory() => _memory.TryShare();

    /// <summary>Continues on a folded form of the memory, if it is one.</summary>
    internal void Adopt(PageMap form) => _memory.Adopt(form);

    public void Dispose() => _memory.Dispose();
}

using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>What a state file holds: a snapshot without the content of its memory.</summary>
internal sealed record SnapshotState
{
    /// <summary>The name of the snapshot in its directory.</summary>
    public required Guid Id { get; init; }

    public required FlatGuestLayout Layout { get; init; }

    public required IReadOnlyList<VcpuState> Vcpus { get; init; }

    public required PlatformDeviceState Device { get; init; }

    /// <summary>The disks, by slot.</summary>
    public required IReadOnlyList<DiskState> Disks { get; init; }

    /// <summary>The layers that pages come from, each once.</summary>
    public required IReadOnlyList<LayerReference> Layers { get; init; }

    /// <summary>Where the pages come from, by ascending page, without overlap. A page in no extent is zero.</summary>
    public required IReadOnlyList<StoredExtent> Extents { get; init; }

    /// <summary>The number of snapshots it builds on, itself included.</summary>
    public required int Depth { get; init; }

    public required TimeSpan Pause { get; init; }

    public required TimeSpan Throttled { get; init; }

    /// <summary>Bytes of memory that were stored for it, on top of those it builds on.</summary>
    public required long StoredBytes { get; init; }
}

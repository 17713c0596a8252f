using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// A snapshot of a machine together with its volumes; or of the volumes of an instance that did not run, whose clones boot. Its volumes go with it, unless they are kept.
/// </summary>
/// <param name="catalog">The volumes.</param>
/// <param name="machine">The snapshot of the machine; <see langword="null"/> when it did not run.</param>
/// <param name="volumes">The volumes as they were.</param>
/// <param name="roms">The ROMs.</param>
/// <param name="owner">What the snapshot of the machine belongs to, and is disposed of instead; <see langword="null"/> when it belongs to this.</param>
internal sealed class VolumeSnapshot(
    VolumeCatalog catalog,
    IMachineSnapshot? machine,
    IReadOnlyList<SnapshotVolume> volumes,
    IReadOnlyList<RomMount> roms,
    IDisposable? owner = null) : IMachineSnapshot
{
    private readonly IDisposable? _owner = owner ?? machine;
    private bool _isDisposed;

    /// <summary>The snapshot of the machine; <see langword="null"/> when it did not run.</summary>
    public IMachineSnapshot? Machine { get; } = machine;

    public IReadOnlyList<SnapshotVolume> Volumes { get; private set; } = volumes;

    public IReadOnlyList<RomMount> Roms { get; } = roms;

    public long StoredBytes => Machine?.StoredBytes ?? 0;

    public int Depth => Machine?.Depth ?? 1;

    public TimeSpan Pause => Machine?.Pause ?? TimeSpan.Zero;

    public TimeSpan Throttled => Machine?.Throttled ?? TimeSpan.Zero;

    public IReadOnlyList<AttachedVolume> Attached =>
        [.. Volumes.Select(static volume => new AttachedVolume(volume.Template.Identity.Uuid, volume.Template.Record.Name, volume.At, volume.IsReadOnly))];

    /// <summary>The ROMs of a snapshot; none unless it is one with ROMs.</summary>
    public static IReadOnlyList<InstanceRom> RomsOf(IMachineSnapshot? snapshot) => RomMount.Describe((snapshot as VolumeSnapshot)?.Roms ?? []);

    /// <summary>The volumes of a snapshot; none unless it is one with volumes.</summary>
    public static IReadOnlyList<AttachedVolume> AttachedOf(IMachineSnapshot? snapshot) => (snapshot as VolumeSnapshot)?.Attached ?? [];

    public void Dispose()
    {
        if (!Interlocked.Exchange(ref _isDisposed, true))
        {
            _owner?.Dispose();
            catalog.BeginDelete([.. Volumes.Select(static volume => volume.Template).Where(static template => !template.Record.IsKept)]);
        }
    }

    /// <summary>The volumes themselves have become the templates.</summary>
    public void Replace(IReadOnlyList<SnapshotVolume> volumes) => Volumes = volumes;
}

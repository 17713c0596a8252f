using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// A snapshot of a machine together with its volumes; or of the volumes of an instance that did not run, whose clones boot. Its volumes go with it, unless they are kept.
/// </summary>
internal sealed class VolumeSnapshot : IMachineSnapshot
{
    private readonly VolumeCatalog _catalog;
    private readonly IDisposable? _owner;
    private readonly Guid? _openedAs;
    private IReadOnlyList<SnapshotVolume> _volumes = [];
    private bool _isDisposed;

    /// <param name="catalog">The volumes.</param>
    /// <param name="machine">The snapshot of the machine; <see langword="null"/> when it did not run.</param>
    /// <param name="volumes">The volumes as they were.</param>
    /// <param name="roms">The ROMs.</param>
    /// <param name="owner">What the snapshot of the machine belongs to, and is disposed of instead; <see langword="null"/> when it belongs to this.</param>
    public VolumeSnapshot(
        VolumeCatalog catalog,
        IMachineSnapshot? machine,
        IReadOnlyList<SnapshotVolume> volumes,
        IReadOnlyList<RomMount> roms,
        IDisposable? owner = null)
    {
        (_catalog, Machine, _volumes, Roms) = (catalog, machine, volumes, roms);
        _owner = owner ?? machine;
    }

    /// <summary>A snapshot that was kept, with the volumes that are kept under its id.</summary>
    public VolumeSnapshot(VolumeCatalog catalog, IMachineSnapshot? machine, Guid openedAs, IReadOnlyList<RomMount> roms)
    {
        (_catalog, Machine, _openedAs, Roms) = (catalog, machine, openedAs, roms);
        _owner = machine;
    }

    /// <summary>The snapshot of the machine; <see langword="null"/> when it did not run.</summary>
    public IMachineSnapshot? Machine { get; }

    // Of one that was opened, what is kept under its id at the time: volumes may take the places of others while it is being opened.
    public IReadOnlyList<SnapshotVolume> Volumes => _openedAs is { } id ? _catalog.ListKept(id) : Volatile.Read(ref _volumes);

    public IReadOnlyList<RomMount> Roms { get; }

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
            _catalog.BeginDelete([.. Volumes.Select(static volume => volume.Template).Where(static template => !template.Record.IsKept)]);
        }
    }

    /// <summary>The volumes themselves have become the templates.</summary>
    public void Replace(IReadOnlyList<SnapshotVolume> volumes) => Volatile.Write(ref _volumes, volumes);
}

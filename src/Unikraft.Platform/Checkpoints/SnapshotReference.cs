using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Checkpoints;

/// <summary>One owner's hold on a snapshot, in memory or in a file. The snapshot is disposed of with the last hold on it.</summary>
internal sealed class SnapshotReference : IDisposable
{
    private readonly Shared _shared;
    private bool _released;

    public SnapshotReference(IMachineSnapshot snapshot)
        : this(new Shared { Snapshot = snapshot })
    {
    }

    private SnapshotReference(Shared shared) => _shared = shared;

    /// <summary>The snapshot, as long as it is known to be in memory.</summary>
    public IMachineSnapshot Snapshot => _shared.Snapshot ?? throw new InvalidOperationException("The snapshot was not opened.");

    /// <summary>The snapshot, if it is in memory.</summary>
    public IMachineSnapshot? Opened => _shared.Snapshot;

    /// <summary>Under what it is kept in the data directory, if it is.</summary>
    public Guid? KeptAs => _shared.KeptAs;

    /// <summary>Where it is kept and under what, if it is.</summary>
    public (DataDirectory Data, Guid Id)? Kept => _shared is { Data: { } data, KeptAs: { } id } ? (data, id) : null;

    /// <summary>The volumes that belong to the snapshot, whether it is in memory or not.</summary>
    public IReadOnlyList<AttachedVolume> Volumes => this is { Opened: null, Kept: { } kept } ? kept.Data.VolumesOf(kept.Id) : VolumeSnapshot.AttachedOf(Opened);

    /// <summary>The ROMs of the snapshot, whether it is in memory or not.</summary>
    public IReadOnlyList<InstanceRom> Roms => this is { Opened: null, Kept: { } kept } ? kept.Data.RomsOf(kept.Id) : VolumeSnapshot.RomsOf(Opened);

    /// <summary>A hold on a snapshot in a file.</summary>
    public static SnapshotReference Of(DataDirectory data, Guid keptAs)
    {
        data.Hold(keptAs);
        return new SnapshotReference(new Shared { Data = data, KeptAs = keptAs });
    }

    /// <summary>Makes a hold for another owner.</summary>
    public SnapshotReference Share()
    {
        lock (_shared)
        {
            ObjectDisposedException.ThrowIf(_released, this);
            _shared.Holds++;
            return new SnapshotReference(_shared);
        }
    }

    /// <summary>Opens the snapshot, if it is not open. Every page is verified before a guest runs on it.</summary>
    /// <exception cref="DataDamageException">A file of it is damaged.</exception>
    public async ValueTask<IMachineSnapshot> OpenAsync(CancellationToken cancellationToken)
    {
        if (_shared.Snapshot is { } snapshot)
        {
            return snapshot;
        }

        await _shared.Opening.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            return _shared.Snapshot ??= await _shared.Data!
                .OpenSnapshotAsync(_shared.KeptAs!.Value, cancellationToken)
                .ConfigureAwait(false);
        }
        finally
        {
            _shared.Opening.Release();
        }
    }

    /// <summary>Saves the snapshot in a data directory, if it is not there.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused. Nothing remains.</exception>
    public async Task KeepAsync(DataDirectory data, CancellationToken cancellationToken)
    {
        await _shared.Opening.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_shared.KeptAs is null)
            {
                _shared.KeptAs = await data.KeepAsync(_shared.Snapshot!, cancellationToken).ConfigureAwait(false);
                _shared.Data = data;
            }
        }
        finally
        {
            _shared.Opening.Release();
        }
    }

    public void Dispose()
    {
        lock (_shared)
        {
            if (_released)
            {
                return;
            }

            _released = true;
            if (--_shared.Holds != 0)
            {
                return;
            }
        }

        _shared.Snapshot?.Dispose();
        if (_shared.KeptAs is { } id)
        {
            _shared.Data!.Release(id);
        }

        _shared.Opening.Dispose();
    }

    private sealed class Shared
    {
        public int Holds { get; set; } = 1;

        public IMachineSnapshot? Snapshot { get; set; }

        public DataDirectory? Data { get; set; }

        public Guid? KeptAs { get; set; }

        public SemaphoreSlim Opening { get; } = new(1, 1);
    }
}

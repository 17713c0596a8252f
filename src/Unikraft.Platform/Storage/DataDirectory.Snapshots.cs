using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage;

internal sealed partial class DataDirectory
{
    // State, index and metadata of a snapshot, beside its pages.
    private const long SnapshotOverhead = 64 << 10;

    /// <summary>Fails when there is not so much room that anything new may be kept.</summary>
    /// <exception cref="StorageException">The disk is full.</exception>
    internal void RequireSpace() => Reserve(SnapshotOverhead).Dispose();

    /// <summary>Saves a snapshot, which is held until <see cref="Release"/>.</summary>
    /// <returns>Under what it is kept.</returns>
    /// <exception cref="StorageException">The disk is full, or the host refused. Nothing remains.</exception>
    internal async Task<Guid> KeepAsync(IMachineSnapshot snapshot, CancellationToken cancellationToken)
    {
        await _keeping.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            Guid id = Guid.NewGuid();
            using IDisposable reservation = Reserve(snapshot.StoredBytes + SnapshotOverhead);
            try
            {
                await _snapshots.SaveAsync(id, snapshot, progress: null, cancellationToken).ConfigureAwait(false);
            }
            catch (ArgumentException error)
            {
                throw new HypervisorException($"The snapshot cannot be kept in the data directory '{Root}': {error.Message} Take it while the instance runs.", error);
            }

            Hold(id);
            return id;
        }
        finally
        {
            _keeping.Release();
        }
    }

    /// <summary>The volume templates that belong to a snapshot.</summary>
    internal IReadOnlyList<AttachedVolume> VolumesOf(Guid id) => (_snapshots as VolumeSnapshotDirectory)?.DescribeVolumes(id) ?? [];

    /// <summary>Keeps the file of a snapshot as long as somebody may open it.</summary>
    internal void Hold(Guid id)
    {
        lock (_lock)
        {
            _snapshotHolds[id] = _snapshotHolds.GetValueOrDefault(id) + 1;
        }
    }

    internal void Release(Guid id)
    {
        lock (_lock)
        {
            int holds = _snapshotHolds.GetValueOrDefault(id) - 1;
            if (holds > 0)
            {
                _snapshotHolds[id] = holds;
                return;
            }

            _snapshotHolds.Remove(id);
            CollectIfUnused(id);
        }
    }

    private void NoteSnapshots(IEnumerable<StateChange> changes)
    {
        lock (_lock)
        {
            foreach (StateChange change in changes)
            {
                NoteSnapshot(change.Key, change.Kind == StateChangeKind.Put ? change.Snapshot : null);
            }
        }
    }

    // Under the lock.
    private void NoteSnapshot(StateKey key, Guid? snapshot)
    {
        _snapshotOf.Remove(key, out Guid before);
        if (snapshot is { } id)
        {
            _snapshotOf[key] = id;
            _snapshotRecords[id] = _snapshotRecords.GetValueOrDefault(id) + 1;
        }

        if (before != Guid.Empty)
        {
            _snapshotRecords[before]--;
            CollectIfUnused(before);
        }
    }

    // Under the lock. What no record on the disk refers to and nobody may open is of no use.
    private void CollectIfUnused(Guid id)
    {
        if (!_isFrozen && !_isHeldBack && _snapshotRecords.GetValueOrDefault(id) == 0 && !_snapshotHolds.ContainsKey(id))
        {
            _snapshotRecords.Remove(id);
            _collecting = CollectAsync(_collecting, id);
        }
    }

    /// <summary>Waits for the removals under way.</summary>
    internal async Task CollectedAsync()
    {
        Task collecting;
        lock (_lock)
        {
            collecting = _collecting;
        }

        await collecting.ConfigureAwait(false);
        if (_snapshots is VolumeSnapshotDirectory volumes)
        {
            await volumes.WhenIdleAsync().ConfigureAwait(false);
        }
    }

    private async Task CollectAsync(Task previous, Guid id)
    {
        await previous.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        lock (_lock)
        {
            if (_snapshotHolds.ContainsKey(id) || _snapshotRecords.GetValueOrDefault(id) > 0)
            {
                // Wanted again.
                return;
            }
        }

        try
        {
            await _snapshots.DeleteAsync(id).ConfigureAwait(false);
        }
        catch (Exception error) when (error is PlatformException or ObjectDisposedException)
        {
            // It goes at the next start.
            _logger.SnapshotNotDeleted(error, id, Root);
        }
    }

    private Reservation Reserve(long bytes)
    {
        long free = _files.FreeBytes();
        lock (_lock)
        {
            if (free - _reserved < bytes + _settings.MinFreeDiskBytes)
            {
                throw new StorageException(
                    Root,
                    FormattableString.Invariant(
                        $"The disk of '{Root}' has {free} bytes left, of which {_reserved} are reserved and {_settings.MinFreeDiskBytes} are to stay free; {bytes} more are needed. Free some space and try again."),
                    isFull: true);
            }

            _reserved += bytes;
            return new Reservation(this, bytes);
        }
    }

    private sealed class Reservation(DataDirectory data, long bytes) : IDisposable
    {
        public void Dispose()
        {
            lock (data._lock)
            {
                data._reserved -= bytes;
            }
        }
    }
}

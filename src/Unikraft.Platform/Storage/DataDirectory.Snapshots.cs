using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage;

internal sealed partial class DataDirectory
{
    // What a record, a log and directories take beside the files of a snapshot, for which the backend reserves what they take.
    private const long SnapshotOverhead = 64 << 10;

    /// <summary>Fails when there is not so much room that anything new may be kept.</summary>
    /// <exception cref="StorageException">The disk is full.</exception>
    internal Task RequireSpaceAsync(CancellationToken cancellationToken) =>
        AfterDeletionsAsync(
            () =>
            {
                ReserveMetadata().Dispose();
                return Task.FromResult(true);
            },
            cancellationToken);

    /// <summary>Saves a snapshot, which is held until <see cref="Release"/>.</summary>
    /// <returns>Under what it is kept.</returns>
    /// <exception cref="StorageException">The disk is full, or the host refused. Nothing remains.</exception>
    internal async Task<Guid> KeepAsync(IMachineSnapshot snapshot, CancellationToken cancellationToken)
    {
        await _keeping.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            return await KeepNewAsync(snapshot, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _keeping.Release();
        }
    }

    /// <summary>Does what needs room; once more if the disk is full while something is being removed: what was deleted before has left, but may not have made its room yet.</summary>
    private async Task<T> AfterDeletionsAsync<T>(Func<Task<T>> action, CancellationToken cancellationToken)
    {
        Task collecting = Collecting;
        bool isMakingRoom = !collecting.IsCompleted;
        try
        {
            return await action().ConfigureAwait(false);
        }
        catch (StorageException error) when (error.IsFull && isMakingRoom)
        {
            await collecting.WaitAsync(cancellationToken).ConfigureAwait(false);
            return await action().ConfigureAwait(false);
        }
    }

    private async Task<Guid> KeepNewAsync(IMachineSnapshot snapshot, CancellationToken cancellationToken)
    {
        Guid id = Guid.NewGuid();
        using IDisposable metadata = await AfterDeletionsAsync(() => Task.FromResult(ReserveMetadata()), cancellationToken).ConfigureAwait(false);
        try
        {
            // Each part alone: what is kept of volumes already need not be kept, and taken back, once more.
            Task<long> saving = _snapshots is VolumeSnapshotDirectory withVolumes
                ? withVolumes.SaveAsync(id, snapshot, save => AfterDeletionsAsync(save, cancellationToken), cancellationToken)
                : AfterDeletionsAsync(() => _snapshots.SaveAsync(id, snapshot, progress: null, cancellationToken), cancellationToken);
            await saving.ConfigureAwait(false);
        }
        catch (ArgumentException error)
        {
            throw new HypervisorException($"The snapshot cannot be kept in the data directory '{Root}': {error.Message} Take it while the instance runs.", error);
        }

        if (snapshot is not VolumeSnapshot { Machine: null })
        {
            NoteMachine(id, _machine.Value);
        }

        Hold(id);
        return id;
    }

    private IDisposable ReserveMetadata() => _space.Reserve(_metadata.NextGrowth + SnapshotOverhead);

    /// <summary>The volume templates that belong to a snapshot.</summary>
    internal IReadOnlyList<AttachedVolume> VolumesOf(Guid id) => (_snapshots as VolumeSnapshotDirectory)?.DescribeVolumes(id) ?? [];

    /// <summary>The ROMs of a snapshot.</summary>
    internal IReadOnlyList<InstanceRom> RomsOf(Guid id) => (_snapshots as VolumeSnapshotDirectory)?.DescribeRoms(id) ?? [];

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

    private Task Collecting
    {
        get
        {
            lock (_lock)
            {
                return _collecting;
            }
        }
    }

    /// <summary>Waits for the removals under way.</summary>
    internal async Task CollectedAsync()
    {
        await Collecting.ConfigureAwait(false);
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

            _machines.TryRemove(id, out _);
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
}

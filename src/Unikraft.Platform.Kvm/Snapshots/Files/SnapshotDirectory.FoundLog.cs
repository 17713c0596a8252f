using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <content>What a platform before has left in its log.</content>
internal sealed partial class SnapshotDirectory
{
    /// <summary>Records that were damaged when the directory was opened.</summary>
    private readonly List<DamagedRecord> _damaged = [];

    // The log is the one that was found when the directory was opened. Guarded by the lock for writing, once that is open.
    private volatile bool _isLogFound;

    // The host could not read all of the log that was found, and may the next time; or it was cut off, and somebody may have the whole.
    private bool _isLogKept;

    /// <summary>Removes the log that was found when the directory was opened, once all that is in it has files: from then on there can be another one.</summary>
    private async Task RemoveFoundLogAsync()
    {
        lock (_lock)
        {
            if (!_isLogFound || _pending.Count > 0)
            {
                return;
            }
        }

        await _writing.WaitAsync(_closing.Token).ConfigureAwait(false);
        try
        {
            if (_isLogFound)
            {
                RemoveLog();
            }
        }
        finally
        {
            _writing.Release();
        }
    }

    /// <summary>
    /// Finds what a platform before has left in its log. It gets its files in the background, as if it had just been saved, and before anything else is saved: opening a directory
    /// does not wait for them.
    /// </summary>
    private void FindLog(CancellationToken cancellationToken)
    {
        _store.Delete(LogFormat.Name + FileStore.TemporarySuffix);
        PublicationLog? log;
        try
        {
            log = PublicationLog.TryOpen(_store);
        }
        catch (Exception error) when (error is FileDamageException || (error is StorageException refused && StoredFile.IsUnreadable(refused)))
        {
            // What the disk cannot read may be there at the next opening.
            _isLogKept = error is StorageException;

            // What it says of layers is unknown: none is removed. What was in it is missed by whoever knows of it.
            Log.StateUnreadable(_logger, error, _store.PathOf(LogFormat.Name));
            _unreadable.Add(LogFormat.Name);
            NoteUnreadable(LogFormat.Name, error, snapshot: null);
            return;
        }

        if (log is null)
        {
            return;
        }

        (_log, _isLogFound) = (log, true);
        try
        {
            LogContents contents = log.Read(cancellationToken);
            FileDamageException? damage = log.Damage ?? (contents.IsReadable ? null : FileDamageException.Damaged("has parts that cannot be read"));
            _isLogKept = damage is not null;
            _pending.AddRange(contents.Sound);
            _damaged.AddRange(contents.Damaged);
            foreach (DamagedRecord record in contents.Damaged)
            {
                Log.RecordUnreadable(_logger, error: null, record.Snapshot, _store.PathOf(LogFormat.Name));
            }

            if (damage is not null)
            {
                // What is not there is unknown: no layer is removed, and no other log takes its place.
                _unreadable.Add(LogFormat.Name);
                NoteUnreadable(LogFormat.Name, damage, snapshot: null);
            }
        }
        catch (StorageException error)
        {
            Log.SettlingFailed(_logger, error, _store.Directory);
        }
    }

    /// <summary>Makes the files of a log that was found, and removes it, where that is not left to the background.</summary>
    private void SettleUnlessLater(CancellationToken cancellationToken)
    {
        if (!_isLogKept && _pending.Count > 0 && _logOptions is not null)
        {
            return;
        }

        try
        {
            Settle(cancellationToken);
            RemoveLog();
        }
        catch (StorageException error)
        {
            Log.SettlingFailed(_logger, error, _store.Directory);
        }
    }

    /// <summary>Begins to make files of what was found in the log.</summary>
    private void SettleFound()
    {
        ReserveFound();
        lock (_lock)
        {
            if (_pending.Count > 0 && _logOptions is { } options)
            {
                BeginSettling(options);
            }
        }
    }

    /// <summary>Sets aside what the files of what was found take, so that nobody else is promised it. Nobody else knows of the directory yet.</summary>
    private void ReserveFound()
    {
        try
        {
            foreach (PendingSnapshot pending in _pending)
            {
                pending.Reservation = _space?.Reserve(SpaceOfFile(StateFile.LengthOf(pending.State))
                    + pending.Record.Layers.Sum(static layer => SpaceOfFile(LayerFormat.Length(layer.Header.StoredPages, layer.Header.Runs))));
            }
        }
        catch (StorageException error)
        {
            // It is safe in the log, and gets its files when there is room.
            Log.SettlingFailed(_logger, error, _store.Directory);
        }
    }

    /// <summary>Lists what is in the log alone.</summary>
    private void RegisterPending()
    {
        foreach ((LogRecord record, SnapshotState state) in _pending)
        {
            string name = StateFile.NameOf(record.Snapshot);
            List<StoredLayer> layers = [];
            foreach (LayerReference reference in state.Layers)
            {
                if (!_layers.TryGetValue(reference.Id, out StoredLayer? layer))
                {
                    layer = FindOrAdd(reference.Id, reference.Root == default ? null : reference.Root);
                }

                layer.IsLogged |= record.Layers.Any(logged => logged.Header.Id == reference.Id);
                layer.Dependents.Add(name);
                layers.Add(layer);
            }

            _snapshots[record.Snapshot] = layers;
        }
    }

    /// <summary>Notes what was lost with damaged records, for whoever wants it.</summary>
    private void RegisterDamage()
    {
        foreach (DamagedRecord record in _damaged.Where(record => record.Snapshot != Guid.Empty && !_snapshots.ContainsKey(record.Snapshot)))
        {
            _lost[record.Snapshot] = record.Layers;
            foreach (Guid id in record.Layers)
            {
                if (_layers.TryGetValue(id, out StoredLayer? layer))
                {
                    layer.Loss = DescribeLoss(record.Snapshot);
                }
            }
        }
    }

    /// <summary>Under the lock.</summary>
    private SnapshotFileException DescribeLost(Guid id, IReadOnlyList<Guid> layers)
    {
        HashSet<Guid> dependents = [id];
        foreach (Guid layer in layers)
        {
            if (_layers.TryGetValue(layer, out StoredLayer? stored))
            {
                dependents.UnionWith(SnapshotsOf(stored));
            }
        }

        return Describe(LogFormat.Name, FileDamageException.Damaged($"had a record of snapshot {id:D} that was not as it was written"), [.. dependents]);
    }
}

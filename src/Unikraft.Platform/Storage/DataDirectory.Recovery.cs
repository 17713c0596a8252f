using System.Collections.Immutable;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;

namespace Unikraft.Platform.Storage;

internal sealed partial class DataDirectory
{
    private readonly Dictionary<Guid, SnapshotReference> _recoveredSnapshots = [];
    private readonly List<DataDamage> _damageFound = [];
    private bool _isRecovered;

    /// <summary>What was found damaged when the directory was opened, and of snapshots since.</summary>
    internal IReadOnlyList<DataDamage> DamageFound
    {
        get
        {
            lock (_lock)
            {
                return [.. _metadata.Damage, .. _damageFound];
            }
        }
    }

    internal long TornBytes => _metadata.TornBytes;

    /// <summary>Reads what was kept. Resources whose record is damaged are told apart.</summary>
    internal (List<(Guid Uuid, ResourceRecord Record)> Sound, List<(StateKey Key, DataDamageException Damage)> Damaged) Recover()
    {
        List<(Guid, ResourceRecord)> sound = [];
        List<(StateKey, DataDamageException)> damaged = [];
        foreach ((StateKey key, StateChange state) in _metadata.States.Where(static entry => entry.Key.Kind == StateKind.Lineage))
        {
            try
            {
                _lineages.Load(key.Uuid, state.Kind == StateChangeKind.Put
                    ? RecordSerializer.DecodeLineage(state.Payload.Span)
                    : throw new MetadataDamageException("is damaged"));
            }
            catch (MetadataDamageException)
            {
                // Those who descend from it are told when they are read.
                _isHeldBack = true;
            }
        }

        foreach ((StateKey key, StateChange state) in _metadata.States.Where(static entry => entry.Key.Kind != StateKind.Lineage))
        {
            try
            {
                ResourceRecord record = state.Kind == StateChangeKind.Put
                    ? RecordSerializer.Decode(key.Kind, state.Payload.Span)
                    : throw new MetadataDamageException(System.Text.Encoding.UTF8.GetString(state.Payload.Span));
                _lineages.Read(record.Lineage);
                sound.Add((key.Uuid, record));
                if (record.Snapshot is { } snapshot)
                {
                    NoteSnapshot(key, snapshot);
                    if (record.Machine is { } machine)
                    {
                        NoteMachine(snapshot, machine);
                    }
                }
            }
            catch (MetadataDamageException error)
            {
                _isHeldBack = true;
                damaged.Add((key, new DataDamageException(
                    _files.PathOf(MetadataStore.Folder),
                    [key.Uuid],
                    $"The {key} in '{_files.PathOf(MetadataStore.Folder)}' cannot be used: {error.Message}. Put a sound copy of the folder there, or discard it.",
                    error)));
            }
        }

        foreach (DataDamage damage in _metadata.Damage)
        {
            _isHeldBack = true;
            _logger.DamageFound(damage.Path, damage.Message);
        }

        NoteDamagedSnapshots();
        if (TornBytes > 0)
        {
            _logger.TornChangeDropped(TornBytes, Root);
        }

        CollectAtStart(sound);
        return (sound, damaged);
    }

    /// <summary>Notes what is found while resources are recovered, or by whoever needs a file: once for each.</summary>
    internal void NoteDamage(DataDamage damage)
    {
        lock (_lock)
        {
            int known = _damageFound.FindIndex(other => string.Equals(other.Path, damage.Path, StringComparison.Ordinal));
            if (known < 0)
            {
                _damageFound.Add(damage);
            }
            else
            {
                _damageFound[known] = damage with { Dependents = [.. _damageFound[known].Dependents.Union(damage.Dependents)] };
            }
        }
    }

    // What nobody needs is no damage. A file that nobody knows the dependents of may be needed by all.
    private void NoteDamagedSnapshots()
    {
        HashSet<Guid> present = [.. _snapshots.List()];
        IEnumerable<DataDamageException> found =
        [
            .. _snapshots.DamageFound.Where(error => error.Snapshots.Count == 0 || error.Snapshots.Any(IsWanted)).Select(error => Damaged(error.Snapshots, error)),
            .. _snapshotRecords.Keys.Where(id => !present.Contains(id)).Select(id => Damaged([id], new ResourceNotFoundException("snapshot", id))),
        ];
        foreach (DataDamage damage in found.Select(ToDamage))
        {
            _logger.DamageFound(damage.Path, damage.Message);
            NoteDamage(damage);
        }
    }

    internal ImmutableList<CheckpointReference> ReadLineage(Guid? head) => _lineages.Read(head);

    /// <summary>A hold on a snapshot in a file, which is opened when it is first needed.</summary>
    internal SnapshotReference? RecoverSnapshot(Guid? id)
    {
        if (id is not { } kept)
        {
            return null;
        }

        if (_isRecovered)
        {
            return SnapshotReference.Of(this, kept);
        }

        // Several resources may continue from one: they share what is opened.
        if (!_recoveredSnapshots.TryGetValue(kept, out SnapshotReference? snapshot))
        {
            _recoveredSnapshots.Add(kept, snapshot = SnapshotReference.Of(this, kept));
        }

        return snapshot.Share();
    }

    /// <summary>Everything was recovered, and holds what it needs.</summary>
    internal void EndRecovery()
    {
        foreach (SnapshotReference snapshot in _recoveredSnapshots.Values)
        {
            snapshot.Dispose();
        }

        _recoveredSnapshots.Clear();
        _isRecovered = true;
    }

    /// <summary>Removes what an interrupted operation left, unless damage makes it doubtful what is needed.</summary>
    private void CollectAtStart(List<(Guid Uuid, ResourceRecord Record)> resources)
    {
        foreach (string folder in (string[])[KeptLogs.Folder, KeptImages.Folder, MetadataStore.Folder, ImportFolder])
        {
            foreach (string name in _files.List(folder).Where(
                name => folder is ImportFolder || name.EndsWith(DataFiles.TemporarySuffix, StringComparison.Ordinal)))
            {
                _files.DeleteIfPossible(Path.Combine(folder, name));
            }
        }

        if (_isHeldBack)
        {
            _logger.DataCollectionHeldBack(Root);
            return;
        }

        HashSet<Guid> instances = [.. resources.Where(static entry => entry.Record is InstanceRecord).Select(static entry => entry.Uuid)];
        foreach ((string name, _) in Logs.List().Where(log => !instances.Contains(log.Instance)).ToList())
        {
            _files.DeleteIfPossible(name);
        }

        Images.Collect(resources.SelectMany(static entry => entry.Record.ImageDigests));
        foreach (Guid snapshot in _snapshots.List().Where(id => _snapshotRecords.GetValueOrDefault(id) == 0))
        {
            lock (_lock)
            {
                _collecting = CollectAsync(_collecting, snapshot);
            }
        }

        IReadOnlyList<Guid> unneeded = _lineages.Collect(resources.Select(static entry => entry.Record.Lineage).OfType<Guid>());
        lock (_lock)
        {
            foreach (Guid lineage in unneeded)
            {
                _dirty[new StateKey(StateKind.Lineage, lineage)] = null;
            }

            if (unneeded.Count > 0)
            {
                BeginWriting();
            }
        }
    }
}

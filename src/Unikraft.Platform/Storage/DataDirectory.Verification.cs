using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage;

internal sealed partial class DataDirectory
{
    /// <summary>Opens a snapshot, which is verified unless it was before.</summary>
    /// <exception cref="DataDamageException">A file of it is damaged.</exception>
    /// <exception cref="IncompatibleMachineException">It was taken on a machine that has more than this one.</exception>
    internal async Task<IMachineSnapshot> OpenSnapshotAsync(Guid id, CancellationToken cancellationToken)
    {
        RequireMachine(id);
        try
        {
            await VerifyVolumesAsync(id, isTrusting: true, progress: null, cancellationToken).ConfigureAwait(false);
            return await _snapshots.OpenAsync(id, progress: null, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception error) when (error is SnapshotFileException or ResourceNotFoundException)
        {
            DataDamageException damage = Damaged([id], error);
            NoteDamage(ToDamage(damage));
            throw damage;
        }
    }

    /// <summary>Verifies what a checkpoint needs.</summary>
    /// <exception cref="DataDamageException">Something is damaged.</exception>
    internal async Task VerifyAsync(CheckpointRecord record, IProgress<VerificationProgress>? progress, CancellationToken cancellationToken)
    {
        int total = (record.Snapshot is null ? 0 : 1) + record.Configuration.Image.Digests.Count();
        int completed = 0;
        progress?.Report(new VerificationProgress(completed, total));
        if (record.Snapshot is { } snapshot)
        {
            if (await VerifySnapshotAsync(snapshot, Within(progress, completed, total), cancellationToken).ConfigureAwait(false) is { } damage)
            {
                throw damage;
            }

            progress?.Report(new VerificationProgress(++completed, total));
        }

        foreach (string digest in record.Configuration.Image.Digests)
        {
            Images.Read(digest, []);
            progress?.Report(new VerificationProgress(++completed, total));
        }
    }

    /// <summary>Verifies everything.</summary>
    internal async Task<IReadOnlyList<DataDamage>> VerifyAllAsync(IProgress<VerificationProgress>? progress, CancellationToken cancellationToken)
    {
        List<DataDamage> found = [];
        List<DataDamage> doubtful = [];
        Guid[] snapshots;
        Dictionary<string, List<Guid>> images = new(StringComparer.Ordinal);
        List<(Guid Uuid, long LogEnd)> instances = [];
        await _metadataAccess.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            found.AddRange(_metadata.Verify());
            foreach ((StateKey key, StateChange state) in _metadata.States)
            {
                if (key.Kind == StateKind.Lineage)
                {
                    continue;
                }

                if (state.Kind == StateChangeKind.Damaged)
                {
                    found.Add(new DataDamage(_files.PathOf(MetadataStore.Folder), "has lost the record of a resource", [key.Uuid]));
                    continue;
                }

                ResourceRecord record;
                try
                {
                    record = RecordSerializer.Decode(key.Kind, state.Payload.Span);
                }
                catch (MetadataDamageException error)
                {
                    found.Add(new DataDamage(_files.PathOf(MetadataStore.Folder), error.Message, [key.Uuid]));
                    continue;
                }

                foreach (string digest in record.ImageDigests)
                {
                    (images.TryGetValue(digest, out List<Guid>? users) ? users : images[digest] = []).Add(key.Uuid);
                }

                if (key.Kind == StateKind.Instance)
                {
                    instances.Add((key.Uuid, ((InstanceRecord)record).LogEnd));
                }
            }
        }
        finally
        {
            _metadataAccess.Release();
        }

        lock (_lock)
        {
            snapshots = [.. _snapshotRecords.Where(static entry => entry.Value > 0).Select(static entry => entry.Key)];
        }

        VolumeSnapshotDirectory? volumes = _snapshots as VolumeSnapshotDirectory;
        IReadOnlyList<StoredVolume> others = volumes?.ListOthers() ?? [];
        int total = 1 + snapshots.Length + images.Count + instances.Count + others.Count;
        int completed = 0;
        Report();
        foreach (Guid snapshot in snapshots)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (await VerifySnapshotAsync(snapshot, Within(progress, completed, total), cancellationToken).ConfigureAwait(false) is { } damage && IsWanted(snapshot))
            {
                found.Add(ToDamage(damage));
            }

            Report();
        }

        foreach ((string digest, List<Guid> users) in images)
        {
            cancellationToken.ThrowIfCancellationRequested();
            try
            {
                Images.Read(digest, users);
            }
            catch (Exception error) when (error is DataDamageException or StorageException)
            {
                StorageException? refused = error as StorageException ?? error.InnerException as StorageException;
                doubtful.Add(new DataDamage(
                    _files.PathOf(KeptImages.NameOf(digest)),
                    refused is null ? "is missing or not as it was written" : $"cannot be read: {refused.Message}",
                    users));
            }

            Report();
        }

        foreach ((Guid instance, long logEnd) in instances)
        {
            if (Logs.Verify(instance, logEnd) is { } damage)
            {
                doubtful.Add(new DataDamage(_files.PathOf(KeptLogs.NameOf(instance)), damage, [instance]));
            }

            Report();
        }

        // What was deleted meanwhile has no files any more, and needs none.
        await _metadataAccess.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            HashSet<Guid> present = [.. _metadata.States.Keys.Select(static key => key.Uuid)];
            found.AddRange(doubtful.Where(damage => damage.Dependents.Any(present.Contains)));
        }
        finally
        {
            _metadataAccess.Release();
        }

        if (volumes is not null)
        {
            PartialProgress? within = Within(progress, completed, total);
            found.AddRange(await volumes.VerifyOthersAsync(
                others,
                within,
                () =>
                {
                    Report();
                    within?.Next();
                },
                cancellationToken).ConfigureAwait(false));
        }

        // Several things may need one file: it is one damage.
        return
        [
            .. found.GroupBy(static damage => damage.Path, StringComparer.Ordinal)
                .Select(static group => group.First() with { Dependents = [.. group.SelectMany(static damage => damage.Dependents).Distinct()] }),
        ];

        void Report() => progress?.Report(new VerificationProgress(++completed, total));
    }

    private bool IsWanted(Guid snapshot)
    {
        lock (_lock)
        {
            return _snapshotRecords.GetValueOrDefault(snapshot) > 0;
        }
    }

    private static PartialProgress? Within(IProgress<VerificationProgress>? progress, int completed, int total) =>
        progress is null ? null : new PartialProgress(progress, completed, total);

    private async Task<DataDamageException?> VerifySnapshotAsync(Guid id, IProgress<SnapshotProgress>? progress, CancellationToken cancellationToken)
    {
        try
        {
            await _snapshots.VerifyAsync(id, progress, cancellationToken).ConfigureAwait(false);
            await VerifyVolumesAsync(id, isTrusting: false, progress, cancellationToken).ConfigureAwait(false);
            return null;
        }
        catch (Exception error) when (error is SnapshotFileException or ResourceNotFoundException)
        {
            return Damaged([id], error);
        }
    }

    private static DataDamage ToDamage(DataDamageException damage) => new(damage.Path, damage.InnerException!.Message, damage.Dependents);

    private Task VerifyVolumesAsync(Guid id, bool isTrusting, IProgress<SnapshotProgress>? progress, CancellationToken cancellationToken) =>
        (_snapshots as VolumeSnapshotDirectory)?.VerifyVolumesAsync(id, isTrusting, progress, cancellationToken) ?? Task.CompletedTask;

    private DataDamageException Damaged(IReadOnlyCollection<Guid> ids, Exception error)
    {
        HashSet<Guid> snapshots = error is SnapshotFileException damage ? [.. ids, .. damage.Snapshots] : [.. ids];
        Guid[] dependents;
        string[] names;
        lock (_lock)
        {
            StateKey[] keys = [.. _snapshotOf.Where(entry => snapshots.Contains(entry.Value)).Select(static entry => entry.Key)];
            dependents = [.. keys.Select(static key => key.Uuid)];
            names = [.. keys.Select(static key => key.ToString())];
        }

        string path = (error as SnapshotFileException)?.Path ?? Path.Combine(_files.PathOf(SnapshotFolder), ids.First().ToString("D"));
        return new DataDamageException(
            path,
            dependents,
            $"The file '{path}' cannot be used: {error.Message} Resources that need it: {(names.Length == 0 ? "none" : string.Join(", ", names))}.",
            error);
    }
    /// <summary>How far a verification has come within one of its parts.</summary>
    private sealed class PartialProgress(IProgress<VerificationProgress> progress, int completed, int total) : IProgress<SnapshotProgress>
    {
        private int _completed = completed;

        public void Next() => _completed++;

        public void Report(SnapshotProgress value) =>
            progress.Report(new VerificationProgress(_completed, total) { CurrentBytes = value.CompletedBytes, CurrentTotalBytes = value.TotalBytes });
    }
}

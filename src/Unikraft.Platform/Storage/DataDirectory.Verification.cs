using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage;

internal sealed partial class DataDirectory
{
    /// <summary>Opens a snapshot, which is verified unless it was before.</summary>
    /// <exception cref="DataDamageException">A file of it is damaged.</exception>
    internal async Task<IMachineSnapshot> OpenSnapshotAsync(Guid id, CancellationToken cancellationToken)
    {
        try
        {
            await VerifyVolumesAsync(id, isTrusting: true, cancellationToken).ConfigureAwait(false);
            return await _snapshots.OpenAsync(id, progress: null, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception error) when (error is SnapshotFileException or ResourceNotFoundException)
        {
            throw Damaged(id, error);
        }
    }

    /// <summary>Verifies what a checkpoint needs.</summary>
    /// <exception cref="DataDamageException">Something is damaged.</exception>
    internal async Task VerifyAsync(CheckpointRecord record, IProgress<VerificationProgress>? progress, CancellationToken cancellationToken)
    {
        int total = (record.Snapshot is null ? 0 : 1) + record.Configuration.Image.Digests.Count();
        int completed = 0;
        if (record.Snapshot is { } snapshot)
        {
            if (await VerifySnapshotAsync(snapshot, cancellationToken).ConfigureAwait(false) is { } damage)
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

                ResourceRecord record = RecordSerializer.Decode(key.Kind, state.Payload.Span);
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

        int total = 1 + snapshots.Length + images.Count + instances.Count;
        int completed = 0;
        Report();
        foreach (Guid snapshot in snapshots)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (await VerifySnapshotAsync(snapshot, cancellationToken).ConfigureAwait(false) is { } damage)
            {
                found.Add(new DataDamage(damage.Path, damage.InnerException!.Message, damage.Dependents));
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
            catch (DataDamageException damage)
            {
                found.Add(new DataDamage(damage.Path, "is missing or not as it was written", users));
            }

            Report();
        }

        foreach ((Guid instance, long logEnd) in instances)
        {
            if (Logs.Verify(instance, logEnd) is { } damage)
            {
                found.Add(new DataDamage(_files.PathOf(KeptLogs.NameOf(instance)), damage, [instance]));
            }

            Report();
        }

        found.AddRange((_snapshots as VolumeSnapshotDirectory)?.ListUnusable().Select(static volume => new DataDamage(volume.Path, volume.Message, [volume.Volume])) ?? []);
        return found;

        void Report() => progress?.Report(new VerificationProgress(++completed, total));
    }

    private async Task<DataDamageException?> VerifySnapshotAsync(Guid id, CancellationToken cancellationToken)
    {
        try
        {
            await _snapshots.VerifyAsync(id, progress: null, cancellationToken).ConfigureAwait(false);
            await VerifyVolumesAsync(id, isTrusting: false, cancellationToken).ConfigureAwait(false);
            return null;
        }
        catch (Exception error) when (error is SnapshotFileException or ResourceNotFoundException)
        {
            return Damaged(id, error);
        }
    }

    private Task VerifyVolumesAsync(Guid id, bool isTrusting, CancellationToken cancellationToken) =>
        (_snapshots as VolumeSnapshotDirectory)?.VerifyVolumesAsync(id, isTrusting, cancellationToken) ?? Task.CompletedTask;

    private DataDamageException Damaged(Guid id, Exception error)
    {
        HashSet<Guid> snapshots = error is SnapshotFileException damage ? [id, .. damage.Snapshots] : [id];
        Guid[] dependents;
        string[] names;
        lock (_lock)
        {
            StateKey[] keys = [.. _snapshotOf.Where(entry => snapshots.Contains(entry.Value)).Select(static entry => entry.Key)];
            dependents = [.. keys.Select(static key => key.Uuid)];
            names = [.. keys.Select(static key => key.ToString())];
        }

        string path = (error as SnapshotFileException)?.Path ?? Path.Combine(_files.PathOf(SnapshotFolder), id.ToString("D"));
        return new DataDamageException(
            path,
            dependents,
            $"The file '{path}' cannot be used: {error.Message} Resources that need it: {(names.Length == 0 ? "none" : string.Join(", ", names))}.",
            error);
    }
}

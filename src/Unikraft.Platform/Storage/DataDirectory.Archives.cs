using System.Security.Cryptography;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage.Archives;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage;

internal sealed partial class DataDirectory
{
    private const string ImportFolder = "import";
    private const int ReadSize = 1 << 20;

    /// <summary>The files that hold the state of a checkpoint: of its snapshot, and its image.</summary>
    internal IEnumerable<string> FilesOf(CheckpointRecord record)
    {
        if (record.Snapshot is { } snapshot)
        {
            foreach (string file in _snapshots.GetFiles(snapshot))
            {
                yield return Path.Combine(SnapshotFolder, file);
            }
        }

        foreach (string image in record.Configuration.Image.Digests)
        {
            yield return KeptImages.NameOf(image);
        }
    }

    /// <summary>The volumes that are kept with a checkpoint.</summary>
    internal IReadOnlyList<ArchivedVolume> ArchivedVolumesOf(CheckpointRecord record) =>
        record.Snapshot is { } snapshot ? (_snapshots as VolumeSnapshotDirectory)?.DescribeArchived(snapshot) ?? [] : [];

    /// <summary>What an archive of a checkpoint has of its volumes.</summary>
    internal async Task<ArchivedVolumes?> ArchiveVolumesAsync(CheckpointRecord record, CancellationToken cancellationToken) =>
        record.Snapshot is { } snapshot && _snapshots is VolumeSnapshotDirectory directory
            ? await directory.ArchiveAsync(snapshot, cancellationToken).ConfigureAwait(false)
            : null;

    /// <summary>Whether a checkpoint has ROMs.</summary>
    internal bool HasRoms(CheckpointRecord record) => record.Snapshot is { } snapshot && RomsOf(snapshot).Count > 0;

    /// <summary>Keeps the files of a checkpoint, though it may be deleted meanwhile.</summary>
    internal IDisposable? HoldFiles(CheckpointRecord record)
    {
        if (record.Snapshot is not { } snapshot)
        {
            return null;
        }

        Hold(snapshot);
        return new HeldSnapshot(this, snapshot);
    }

    /// <summary>The digest of a file.</summary>
    internal string DigestOf(string file, CancellationToken cancellationToken)
    {
        using Stream content = OpenRead(file);
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] buffer = new byte[ReadSize];
        for (int read; (read = content.Read(buffer)) > 0;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            hash.AppendData(buffer, 0, read);
        }

        return $"sha256:{Convert.ToHexStringLower(hash.GetHashAndReset())}";
    }

    /// <exception cref="DataDamageException">It is missing.</exception>
    internal Stream OpenRead(string file) => new StoredStream(
        _files,
        file,
        _files.TryOpen(file) ?? throw new DataDamageException(_files.PathOf(file), [], $"The file '{_files.PathOf(file)}' is missing."));

    /// <summary>Which files of an archive are here already, as they should be.</summary>
    internal Dictionary<string, string> FindPresent(ArchivedCheckpoint archived, CancellationToken cancellationToken)
    {
        HashSet<string> present = new(_files.List(SnapshotFolder), StringComparer.Ordinal);
        Dictionary<string, string> found = new(StringComparer.Ordinal);
        foreach ((string name, string digest) in archived.Files.Where(file => present.Contains(file.Key)))
        {
            if (HasDigest(Path.Combine(SnapshotFolder, name), digest, cancellationToken))
            {
                found.Add(name, digest);
            }
        }

        foreach (string image in archived.Checkpoint.Configuration.Image.Digests.Intersect(_files.List(KeptImages.Folder), StringComparer.Ordinal))
        {
            // A name proves nothing: one that is not as it should be is taken from the archive.
            string digest = $"sha256:{image}";
            if (HasDigest(KeptImages.NameOf(image), digest, cancellationToken))
            {
                found.Add(KeptImages.NameOf(image), digest);
            }
        }

        foreach (ImageChecksum image in archived.VolumeImages)
        {
            if (_snapshots is VolumeSnapshotDirectory volumes && volumes.HasImage(image, cancellationToken))
            {
                found.TryAdd(image.Name, CheckpointArchive.DigestOf(image));
            }
        }

        return found;
    }

    private bool HasDigest(string file, string digest, CancellationToken cancellationToken)
    {
        try
        {
            return string.Equals(DigestOf(file, cancellationToken), digest, StringComparison.Ordinal);
        }
        catch (StorageException error) when (DataFiles.IsUnreadable(error))
        {
            return false;
        }
        catch (DataDamageException)
        {
            // It was listed, and is gone.
            return false;
        }
    }

    /// <summary>Takes in the files of an archive that was verified.</summary>
    /// <returns>What to do when the checkpoint that they are for comes to nothing.</returns>
    internal async Task<IDisposable?> ImportAsync(CheckpointArchive archive, Dictionary<string, string> present, CancellationToken cancellationToken)
    {
        ArchivedCheckpoint archived = archive.Checkpoint;
        string[] images = [.. archived.Checkpoint.Configuration.Image.Digests.Where(image => !present.ContainsKey(KeptImages.NameOf(image)))];
        KeyValuePair<string, string>[] files = [.. archived.Files.Where(file => !present.ContainsKey(file.Key))];

        // Of what is copied alone: the archive lists what it leaves out as well.
        long size = files.Sum(file => archive.SizeOf(file.Value))
            + images.Sum(image => archive.SizeOf($"sha256:{image}"))
            + archived.VolumeImages.DistinctBy(static image => image.Name, StringComparer.Ordinal).Where(image => !present.ContainsKey(image.Name)).Sum(image => archive.SizeOf(CheckpointArchive.DigestOf(image)));
        using IDisposable reservation = _space.Reserve(size + _metadata.NextGrowth + SnapshotOverhead);
        foreach (string image in images)
        {
            CopyOut(archive, $"sha256:{image}", KeptImages.NameOf(image), cancellationToken);
        }

        if (images.Length < archived.Checkpoint.Configuration.Image.Digests.Count())
        {
            // A name that was here may be one whose way to the disk failed.
            _files.SyncDirectory(_files.PathOf(KeptImages.Folder));
        }

        if (archived.Checkpoint.Snapshot is not { } snapshot)
        {
            return null;
        }

        await _keeping.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            bool isNew = archived.Files.Count > 0 && !_snapshots.List().Contains(snapshot);
            if (isNew)
            {
                _files.MakeDirectory(ImportFolder);
                try
                {
                    foreach ((string name, string digest) in files)
                    {
                        CopyOut(archive, digest, Path.Combine(ImportFolder, name), cancellationToken);
                    }

                    await _snapshots.AdoptAsync(snapshot, _files.PathOf(ImportFolder), cancellationToken).ConfigureAwait(false);
                }
                finally
                {
                    EmptyImportFolder();
                }
            }

            Hold(snapshot);
            HeldSnapshot held = new(this, snapshot);
            try
            {
                if (isNew)
                {
                    NoteMachine(snapshot, archived.Machine);
                }

                if (archived.Volumes is { } volumes && ArchivedVolumesOf(archived.Checkpoint).Count == 0)
                {
                    ImportVolumes(archive, snapshot, volumes, cancellationToken);
                }

                // The files are those of the archive; that they are a snapshot which can be restored is for the backend to say.
                await _snapshots.VerifyAsync(snapshot, progress: null, cancellationToken).ConfigureAwait(false);
                return held;
            }
            catch
            {
                held.Dispose();
                throw;
            }
        }
        finally
        {
            _keeping.Release();
        }
    }

    private void ImportVolumes(CheckpointArchive archive, Guid snapshot, IReadOnlyList<ArchivedVolume> volumes, CancellationToken cancellationToken)
    {
        if (_snapshots is not VolumeSnapshotDirectory directory)
        {
            throw new CheckpointArchiveException(archive.Path, isIncompatible: true, $"The checkpoint in '{archive.Path}' has volumes, which this backend does not have.");
        }

        try
        {
            directory.ImportVolumes(
                snapshot,
                volumes,
                hasNoMemory: archive.Checkpoint.Files.Count == 0,
                (image, file) => archive.Copy(CheckpointArchive.DigestOf(image), file, cancellationToken),
                cancellationToken);
        }
        catch (Exception error) when (error is DiskImageException or BlockDeviceException)
        {
            throw new CheckpointArchiveException(
                archive.Path,
                isIncompatible: false,
                $"The archive '{archive.Path}' cannot be imported: {error.Message} Nothing was imported. Export the checkpoint again.",
                error);
        }
    }

    private void CopyOut(CheckpointArchive archive, string digest, string name, CancellationToken cancellationToken) => _files.Publish(name, file =>
    {
        using AppendingStream stream = new(file);
        archive.Copy(digest, stream, cancellationToken);
    });

    private void EmptyImportFolder()
    {
        foreach (string name in _files.List(ImportFolder))
        {
            _files.DeleteIfPossible(Path.Combine(ImportFolder, name));
        }
    }

    /// <summary>Lets go of a snapshot; what nothing refers to is removed.</summary>
    private sealed class HeldSnapshot(DataDirectory data, Guid id) : IDisposable
    {
        public void Dispose() => data.Release(id);
    }

    private sealed class AppendingStream(DataFiles.Appender file) : MemoryStream
    {
        public override void Write(byte[] buffer, int offset, int count) => file.Append(buffer.AsMemory(offset, count));
    }
}

using System.Security.Cryptography;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage.Archives;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage;

internal sealed partial class DataDirectory
{
    private const string ImportFolder = "import";
    private const int ReadSize = 1 << 20;

    internal IReadOnlyDictionary<string, string> Machine => _hypervisor.GetFeature<ISnapshotFiles>()!.Machine;

    internal string? FindIncompatibility(IReadOnlyDictionary<string, string> machine) =>
        _hypervisor.GetFeature<ISnapshotFiles>()!.FindIncompatibility(machine);

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

    /// <summary>Whether volumes of a checkpoint are based on files outside the directory.</summary>
    internal bool AreVolumesBasedElsewhere(CheckpointRecord record) =>
        record.Snapshot is { } snapshot && (_snapshots as VolumeSnapshotDirectory)?.AreBasedElsewhere(snapshot) is true;

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

    /// <summary>Opens an image of a volume, to read it as a file.</summary>
    internal Stream OpenVolumeImage(string name) => ((VolumeSnapshotDirectory)_snapshots).OpenImage(name);

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
            string here = DigestOf(Path.Combine(SnapshotFolder, name), cancellationToken);
            if (string.Equals(here, digest, StringComparison.Ordinal))
            {
                found.Add(name, digest);
            }
        }

        foreach (string image in archived.Checkpoint.Configuration.Image.Digests.Intersect(_files.List(KeptImages.Folder), StringComparer.Ordinal))
        {
            found.Add(KeptImages.NameOf(image), $"sha256:{image}");
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

    /// <summary>Takes in the files of an archive that was verified.</summary>
    /// <returns>What to do when the checkpoint that they are for comes to nothing.</returns>
    internal async Task<IDisposable?> ImportAsync(CheckpointArchive archive, Dictionary<string, string> present, CancellationToken cancellationToken)
    {
        ArchivedCheckpoint archived = archive.Checkpoint;
        foreach (string image in archived.Checkpoint.Configuration.Image.Digests.Where(image => !present.ContainsKey(KeptImages.NameOf(image))))
        {
            CopyOut(archive, $"sha256:{image}", KeptImages.NameOf(image), cancellationToken);
        }

        if (archived.Checkpoint.Snapshot is not { } snapshot)
        {
            return null;
        }

        await _keeping.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            long bytes = archive.Manifest.Layers.Sum(static layer => layer.Size);
            using IDisposable reservation = Reserve(bytes + SnapshotOverhead);
            if (archived.Files.Count > 0 && !_snapshots.List().Contains(snapshot))
            {
                _files.MakeDirectory(ImportFolder);
                try
                {
                    foreach ((string name, string digest) in archived.Files.Where(file => !present.ContainsKey(file.Key)))
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

    private sealed class StoredStream(DataFiles files, string name, IFile file) : Stream
    {
        private long _position;

        public override bool CanRead => true;

        public override bool CanSeek => true;

        public override bool CanWrite => false;

        public override long Length => file.Length;

        public override long Position
        {
            get => _position;
            set => _position = value;
        }

        public override int Read(byte[] buffer, int offset, int count)
        {
            int read = files.Read(name, file, _position, buffer.AsMemory(offset, count));
            _position += read;
            return read;
        }

        public override void Flush()
        {
            // Nothing is written.
        }

        public override long Seek(long offset, SeekOrigin origin) => _position = origin switch
        {
            SeekOrigin.Begin => offset,
            SeekOrigin.Current => _position + offset,
            _ => Length + offset,
        };

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                file.Dispose();
            }

            base.Dispose(disposing);
        }
    }
}

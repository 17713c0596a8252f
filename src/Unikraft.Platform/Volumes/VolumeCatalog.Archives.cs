using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <content>The volumes of snapshots that are kept: what is known of their images, whether they are still so, and how they are carried elsewhere.</content>
internal sealed partial class VolumeCatalog
{
    private readonly Lazy<ImageChecksums> _checksums;

    // What is to be written down of the images of a template that is kept. Those of which it is known from earlier ones are not read again.
    private IReadOnlyList<ImageChecksum> DescribeImages(string top, CancellationToken cancellationToken) => _checksums.Value.Describe(top, cancellationToken);

    /// <summary>Checks that the images of a snapshot that is kept are what they were.</summary>
    /// <param name="id">The snapshot.</param>
    /// <param name="isTrusting">Whether a file is taken for unchanged of which the host says so.</param>
    /// <param name="cancellationToken">Cancels the check.</param>
    /// <exception cref="SnapshotFileException">They are not.</exception>
    public void VerifyKept(Guid id, bool isTrusting, CancellationToken cancellationToken)
    {
        HashSet<string> seen = new(StringComparer.Ordinal);
        foreach (StoredVolume volume in OwnedBy(id))
        {
            foreach (ImageChecksum expected in volume.Record.Images)
            {
                if (seen.Add(expected.Name))
                {
                    Verify(expected, isTrusting, cancellationToken);
                }
            }
        }
    }

    /// <summary>The volumes that cannot be used, and why.</summary>
    public IReadOnlyList<(Guid Volume, string Path, string Message)> ListUnusable()
    {
        if (!_files.IsValueCreated)
        {
            return [];
        }

        lock (_lock)
        {
            return
            [
                .. _volumes.Values.Where(static volume => volume.Failure is not null)
                    .Select(volume => (volume.Identity.Uuid, volume.Record.Top is { } top ? Images.PathOf(top) : Images.Path, volume.Failure!.Message)),
            ];
        }
    }

    /// <summary>What an archive says of the volumes of a snapshot that is kept.</summary>
    public IReadOnlyList<ArchivedVolume> DescribeArchived(Guid id) =>
    [
        .. OwnedBy(id).Select(static volume => volume.Record).OrderBy(static record => record.Slot)
            .Select(static record => new ArchivedVolume(record.Slot, record.At, record.ReadOnly, record.Size, record.Filesystem, record.Images)),
    ];

    /// <summary>Whether the volumes of a snapshot are based on files outside the directory, which no archive could name.</summary>
    public bool AreBasedElsewhere(Guid id) => OwnedBy(id).Any(static volume => volume.Record.Bases.Count > 0);

    /// <summary>Opens an image, to read it as a file.</summary>
    public Stream OpenImage(string name) => Images.OpenAsFile(name);

    /// <summary>Whether an image is here that is what another host says of one of that name.</summary>
    public bool HasImage(ImageChecksum image, CancellationToken cancellationToken) =>
        Images.Has(image.Name) && _checksums.Value.Compute(image.Name, isTrusting: false, cancellationToken) == image;

    /// <summary>Takes in the volumes of a snapshot of another host, whose images were compared with their checksums. They belong to the snapshot then.</summary>
    /// <param name="id">The snapshot.</param>
    /// <param name="volumes">The volumes.</param>
    /// <param name="hasNoMemory">Whether there is nothing else in the snapshot.</param>
    /// <param name="copy">Writes the content of an image.</param>
    /// <param name="cancellationToken">Cancels it; nothing remains then.</param>
    /// <exception cref="DiskImageException">An image is not what it should be. Nothing remains.</exception>
    /// <exception cref="StorageException">The disk is full, or the host refused. Nothing remains.</exception>
    public void ImportKept(Guid id, IReadOnlyList<ArchivedVolume> volumes, bool hasNoMemory, Action<ImageChecksum, Stream> copy, CancellationToken cancellationToken)
    {
        List<string> held = [];
        List<StoredVolume> added = [];
        try
        {
            foreach (ArchivedVolume volume in volumes)
            {
                // From the bottom: an image is based on what is there.
                for (int i = volume.Images.Count - 1; i >= 0; i--)
                {
                    cancellationToken.ThrowIfCancellationRequested();
                    Import(volume.Images[i], i + 1 < volume.Images.Count ? volume.Images[i + 1].Name : null, copy, held, cancellationToken);
                }

                string top = volume.Images[0].Name;
                Probe(top, volume.Size);
                ResourceIdentity identity = ReserveUnnamed();
                added.Add(Add(
                    identity,
                    new VolumeRecord
                    {
                        Uuid = identity.Uuid,
                        CreatedAt = identity.CreatedAt,
                        Top = top,
                        Size = volume.Size,
                        Filesystem = volume.Filesystem,
                        IsTemplate = true,
                        Owner = id,
                        IsKept = true,
                        HasNoMemory = hasNoMemory,
                        Slot = volume.Slot,
                        At = volume.At,
                        ReadOnly = volume.IsReadOnly,
                        Images = volume.Images,
                    },
                    ResourceMetadata.None));
            }
        }
        catch
        {
            BeginDelete(added);
            throw;
        }
        finally
        {
            // Those that are needed belong to volumes by now.
            held.ForEach(Images.Release);
        }
    }

    private void Import(ImageChecksum image, string? backing, Action<ImageChecksum, Stream> copy, List<string> held, CancellationToken cancellationToken)
    {
        string path = Images.PathOf(image.Name);
        FileStream? file = null;
        try
        {
            file = Images.HoldOrCreate(image.Name);
            if (file is null)
            {
                held.Add(image.Name);
                if (_checksums.Value.Compute(image.Name, isTrusting: true, cancellationToken) != image)
                {
                    throw new DiskImageException(DiskImageError.InUse, path, $"There is another disk image '{path}' already.");
                }

                return;
            }

            using (file)
            {
                copy(image, file);
                file.Flush(flushToDisk: true);
            }

            RequireBacking(image.Name, backing);
            Images.Add(image.Name, backing);
        }
        catch (Exception error)
        {
            if (file is not null)
            {
                // Nobody knows it yet. What cannot be removed now goes at the next start.
                Images.Discard(image.Name);
            }

            if (error is IOException or UnauthorizedAccessException)
            {
                throw new StorageException(path, $"Writing '{path}' failed: {error.Message} Free some space, or make the directory writable, and try again.", ImageFile.IsFull(error));
            }

            throw;
        }

        Images.Hold(image.Name);
        held.Add(image.Name);
    }

    // An image is hostile: it may name any file of the host.
    private void RequireBacking(string name, string? backing)
    {
        if (!name.EndsWith(ImageDirectory.OverlaySuffix, StringComparison.Ordinal))
        {
            return;
        }

        using ImageFile file = ImageFile.Open(Images.PathOf(name), isReadOnly: true);
        Qcow2Header header = Qcow2Header.Read(file);
        if (!string.Equals(header.BackingFile, backing, StringComparison.Ordinal)
            || (backing is not null && !string.Equals(header.BackingFormat, FormatOf(backing), StringComparison.Ordinal))
            || header.IsDirty)
        {
            throw new DiskImageException(
                DiskImageError.BackingFileRefused,
                file.Path,
                $"The disk image '{name}' is not based on {(backing is null ? "nothing" : $"'{backing}'")}, or is incomplete.");
        }
    }

    private void Probe(string top, long size)
    {
        string path = Images.PathOf(top);
        long found;
        if (top.EndsWith(ImageDirectory.OverlaySuffix, StringComparison.Ordinal))
        {
            Qcow2Image image = ImageChain.Open(path, isReadOnly: true, Images.Path);
            found = image.Size;
            image.Release();
        }
        else
        {
            using ImageFile file = ImageFile.Open(path, isReadOnly: true);
            found = file.Length;
        }

        if (found != size)
        {
            throw new DiskImageException(DiskImageError.Corrupt, path, $"The disk image '{path}' has {found} bytes instead of {size}.");
        }
    }

    private void Verify(ImageChecksum expected, bool isTrusting, CancellationToken cancellationToken)
    {
        string path = Images.PathOf(expected.Name);
        ImageChecksum found;
        try
        {
            found = _checksums.Value.Compute(expected.Name, isTrusting, cancellationToken);
        }
        catch (DiskImageException error)
        {
            bool isMissing = !File.Exists(path);
            throw Damaged(expected.Name, isMissing ? SnapshotFileError.Missing : SnapshotFileError.Damaged, isMissing ? "is missing" : error.Message, error);
        }

        if (found != expected)
        {
            throw Damaged(expected.Name, SnapshotFileError.Damaged, "is not as it was written", cause: null);
        }
    }

    private SnapshotFileException Damaged(string image, SnapshotFileError error, string what, Exception? cause)
    {
        string path = Images.PathOf(image);
        Guid[] snapshots;
        lock (_lock)
        {
            snapshots =
            [
                .. _volumes.Values.Select(static volume => volume.Record)
                    .Where(record => record is { IsKept: true, Owner: not null } && record.Images.Any(part => string.Equals(part.Name, image, StringComparison.Ordinal)))
                    .Select(static record => record.Owner!.Value).Distinct(),
            ];
        }

        return new SnapshotFileException(
            error,
            path,
            snapshots,
            $"The disk image '{path}' {what}. It is needed by snapshot {string.Join(", ", snapshots)}. Put a sound copy of the file there, or delete what needs it.",
            cause);
    }
}

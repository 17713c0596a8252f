using System.Security.Cryptography;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <content>The volumes of snapshots that are kept: what is known of their images, whether they are still so, and how they are carried elsewhere.</content>
internal sealed partial class VolumeCatalog
{
    private readonly Lazy<ImageChecksums> _checksums;
    private readonly SemaphoreSlim _flattening = new(1, 1);

    // What is to be written down of the images of a template that is kept. Those of which it is known from earlier ones are not read again.
    private IReadOnlyList<ImageChecksum> DescribeImages(VolumeRecord record, CancellationToken cancellationToken)
    {
        // First what is still to be written of them: they were frozen in use.
        foreach (string image in Images.ChainOf(record.Top!))
        {
            Images.Seal(image);
        }

        Images.Repair(record.Top!, record.Bases);
        return _checksums.Value.Describe(record.Top!, cancellationToken);
    }

    /// <summary>A volume becomes a template, whose images do not change any more. The caller has its turn.</summary>
    /// <exception cref="DataDamageException">It is damaged.</exception>
    /// <exception cref="StorageException">The host cannot write. Nothing has changed.</exception>
    public void FreezeAsTemplate(StoredVolume volume, CancellationToken cancellationToken)
    {
        RequireUsable(volume);

        // What is damaged must not get a checksum that says it is sound.
        RequireSound(volume, cancellationToken);
        IReadOnlyList<ImageChecksum> images = volume.Record.IsTemplate ? volume.Record.Images : DescribeImages(volume.Record, cancellationToken);
        Update(volume, record => record with { IsTemplate = true, Images = images });
    }

    /// <summary>Checks that the images of a snapshot that is kept are what they were.</summary>
    /// <param name="id">The snapshot.</param>
    /// <param name="isTrusting">Whether a file is taken for unchanged of which the host says so.</param>
    /// <param name="progress">Told how much of each image has been read.</param>
    /// <param name="cancellationToken">Cancels the check.</param>
    /// <exception cref="SnapshotFileException">They are not.</exception>
    public void VerifyKept(Guid id, bool isTrusting, IProgress<SnapshotProgress>? progress, CancellationToken cancellationToken)
    {
        HashSet<string> seen = new(StringComparer.Ordinal);
        foreach (StoredVolume volume in OwnedBy(id))
        {
            if (volume.Record.Rom is not null)
            {
                VerifyRom(id, volume.Record);
            }

            foreach (ImageChecksum expected in volume.Record.Images)
            {
                if (seen.Add(expected.Name))
                {
                    Verify(expected, isTrusting, progress, cancellationToken);
                }
            }
        }
    }

    /// <summary>What an archive says of the volumes of a snapshot that is kept.</summary>
    public IReadOnlyList<ArchivedVolume> DescribeArchived(Guid id) =>
    [
        .. OwnedBy(id).Select(static volume => volume.Record).OrderBy(static record => record.Slot)
            .Select(static record => new ArchivedVolume(record.Slot, record.At, record.ReadOnly, record.Size, record.Filesystem, record.Images)),
    ];

    /// <summary>
    /// What is put into an archive of the volumes of a snapshot that is kept. Volumes that are based on files outside the directory, which nobody would have elsewhere, are one image there
    /// with all that they hold, made for the archive and removed with what is returned.
    /// </summary>
    /// <exception cref="StorageException">The disk is full, or the host refused. Nothing remains.</exception>
    /// <exception cref="DiskImageException">A base is missing, or not what it was.</exception>
    public async Task<ArchivedVolumes> ArchiveAsync(Guid id, CancellationToken cancellationToken)
    {
        VolumeRecord[] records = [.. OwnedBy(id).Select(static volume => volume.Record).OrderBy(static record => record.Slot)];
        IReadOnlyList<ArchivedVolume> volumes = DescribeArchived(id);
        if (Array.TrueForAll(records, static record => record.Bases.Count == 0))
        {
            return new ArchivedVolumes(volumes, OpenImage, static () => { });
        }

        // One at a time: equal contents have equal names.
        await _flattening.WaitAsync(cancellationToken).ConfigureAwait(false);
        List<string> made = [];
        List<ArchivedVolume> archived = [];
        try
        {
            foreach ((VolumeRecord record, ArchivedVolume volume) in records.Zip(volumes))
            {
                archived.Add(record.Bases.Count == 0 ? volume : volume with { Images = [await FlattenAsync(record, made, cancellationToken).ConfigureAwait(false)] });
            }

            return new ArchivedVolumes(archived, OpenImage, End);
        }
        catch
        {
            End();
            throw;
        }

        void End()
        {
            made.ForEach(Images.Discard);
            _flattening.Release();
        }
    }

    // Not the method of the directory itself, which would be made for that.
    private ImageStream OpenImage(string name) => Images.OpenAsFile(name);

    // The name is that of the contents, so that an archive is the same whenever it is made, and one that was imported here is known again.
    private async Task<ImageChecksum> FlattenAsync(VolumeRecord record, List<string> made, CancellationToken cancellationToken)
    {
        VolumeDisk disk = await OpenDiskAsync(record, isReadOnly: true, cancellationToken).ConfigureAwait(false);
        await using (disk.ConfigureAwait(false))
        {
            byte[] contents = await HashAsync(disk, cancellationToken).ConfigureAwait(false);
            string name = $"{new Guid(contents.AsSpan(0, 16), bigEndian: true):D}{ImageDirectory.OverlaySuffix}";
            if (!Images.Has(name) && !made.Contains(name))
            {
                // What an interrupted export has left.
                Images.Discard(name);
                made.Add(name);
                VolumeDisk copy = await VolumeDisk.CreateAsync(Images.PathOf(name), record.Size, layers: Images.Layers, cancellationToken: cancellationToken).ConfigureAwait(false);
                await using (copy.ConfigureAwait(false))
                {
                    await VolumeStore.CopyAsync(disk, copy, cancellationToken).ConfigureAwait(false);
                }
            }

            VolumeDisk written = await VolumeDisk.OpenAsync(Images.PathOf(name), isReadOnly: true, Images.Path, Images.Layers, cancellationToken: cancellationToken).ConfigureAwait(false);
            await using (written.ConfigureAwait(false))
            {
                byte[] readBack = await HashAsync(written, cancellationToken).ConfigureAwait(false);
                if (!contents.AsSpan().SequenceEqual(readBack))
                {
                    throw new DiskImageException(
                        DiskImageError.Corrupt,
                        record.Bases[^1],
                        $"What the volume {record.Uuid:D} is based on, '{record.Bases[^1]}', changes while it is read, or is not read back as it was written. Let nobody write to it.");
                }
            }

            return await Task.Run(() => _checksums.Value.Compute(name, isTrusting: false, progress: null, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
    }

    private static async Task<byte[]> HashAsync(VolumeDisk disk, CancellationToken cancellationToken)
    {
        const int ReadSize = 1 << 20;
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] buffer = new byte[ReadSize];
        for (long offset = 0; offset < disk.Size; offset += buffer.Length)
        {
            Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(buffer.Length, disk.Size - offset));
            await disk.ReadAsync(offset, part, cancellationToken).ConfigureAwait(false);
            hash.AppendData(part.Span);
        }

        return hash.GetHashAndReset();
    }

    /// <summary>Whether an image is here that is what another host says of one of that name.</summary>
    public bool HasImage(ImageChecksum image, CancellationToken cancellationToken) =>
        Images.Has(image.Name) && _checksums.Value.Compute(image.Name, isTrusting: false, progress: null, cancellationToken) == image;

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
            held.ForEach(image => Images.Release(image));
        }
    }

    private void Import(ImageChecksum image, string? backing, Action<ImageChecksum, Stream> copy, List<string> held, CancellationToken cancellationToken)
    {
        string path = Images.PathOf(image.Name);
        StoredStream? file = null;
        try
        {
            file = Images.HoldOrCreate(image.Name);
            if (file is null)
            {
                held.Add(image.Name);
                if (_checksums.Value.Compute(image.Name, isTrusting: true, progress: null, cancellationToken) != image)
                {
                    throw new DiskImageException(DiskImageError.InUse, path, $"There is another disk image '{path}' already.");
                }

                return;
            }

            using (file)
            {
                copy(image, file);
                file.Sync();
            }

            RequireBacking(image.Name, backing);
            Images.Add(image.Name, backing);
        }
        catch
        {
            if (file is not null)
            {
                // Nobody knows it yet. What cannot be removed now goes at the next start.
                Images.Discard(image.Name);
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

        using ImageFile file = ImageFile.Open(Images.PathOf(name), isReadOnly: true, Images.Files.Layer);
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
            Qcow2Image image = ImageChain.Open(path, isReadOnly: true, Images.Path, Images.Layers);
            found = image.Size;
            image.Release();
        }
        else
        {
            using ImageFile file = ImageFile.Open(path, isReadOnly: true, Images.Files.Layer);
            found = file.Length;
        }

        if (found != size)
        {
            throw new DiskImageException(DiskImageError.Corrupt, path, $"The disk image '{path}' has {found} bytes instead of {size}.");
        }
    }

    private void Verify(ImageChecksum expected, bool isTrusting, IProgress<SnapshotProgress>? progress, CancellationToken cancellationToken)
    {
        string path = Images.PathOf(expected.Name);
        ImageChecksum found;
        try
        {
            found = _checksums.Value.Compute(expected.Name, isTrusting, progress, cancellationToken);
        }
        catch (DiskImageException error)
        {
            bool isMissing = Images.Files.Stat(expected.Name) is null;
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
                .. _volumes.All.Select(static volume => volume.Record)
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

using System.Text.Json;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage.Archives;
using Unikraft.Platform.Templates;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage;

internal sealed class DataDirectoryService(
    PlatformContext platform,
    DataDirectory data,
    ResourceRegistry<StoredCheckpoint> checkpoints,
    ResourceRegistry<InstanceController> instances,
    ResourceRegistry<StoredTemplate> templates,
    CheckpointStore checkpointStore,
    IFileLayer archiveLayer) : IDataDirectory
{
    public string Path => data.Root;

    public IReadOnlyList<DataDamage> DamageFound => data.DamageFound;

    public async Task<IReadOnlyList<DataDamage>> VerifyAsync(
        IProgress<VerificationProgress>? progress = null,
        CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        return await Task.Run(() => data.VerifyAllAsync(progress, cancellationToken), cancellationToken).ConfigureAwait(false);
    }

    public async Task VerifyAsync(
        NameOrUuid checkpoint,
        IProgress<VerificationProgress>? progress = null,
        CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        CheckpointRecord record = RecordOf(checkpoint);
        await Task.Run(() => data.VerifyAsync(record, progress, cancellationToken), cancellationToken).ConfigureAwait(false);
    }

    public async Task<bool> DiscardAsync(Guid uuid)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        StateKind? kind = checkpoints.RemoveDamaged(uuid) ? StateKind.Checkpoint
            : instances.RemoveDamaged(uuid) ? StateKind.Instance
            : templates.RemoveDamaged(uuid) ? StateKind.Template : null;
        if (kind is not { } found)
        {
            return false;
        }

        data.Removed(new StateKey(found, uuid));
        await data.CommitAsync().ConfigureAwait(false);
        return true;
    }

    public async Task<IReadOnlySet<string>> GetDigestsAsync(NameOrUuid checkpoint, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        CheckpointRecord record = RecordOf(checkpoint);
        return await Task.Run(
            () =>
            {
                HashSet<string> digests = new(StringComparer.Ordinal);
                foreach (string file in data.FilesOf(record))
                {
                    digests.Add(data.DigestOf(file, cancellationToken));
                }

                digests.UnionWith(data.ArchivedVolumesOf(record).SelectMany(static volume => volume.Images).Select(CheckpointArchive.DigestOf));

                return digests;
            },
            cancellationToken).ConfigureAwait(false);
    }

    public async Task ExportAsync(
        NameOrUuid checkpoint,
        string path,
        IReadOnlySet<string>? known = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        using Rundown.Scope scope = platform.Rundown.Enter();
        StoredCheckpoint found = checkpoints.Find(checkpoint);
        CheckpointRecord record = RecordOf(checkpoint);
        string full = System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(path));
        if (data.HasRoms(record))
        {
            throw new CheckpointArchiveException(
                full,
                isIncompatible: false,
                $"The checkpoint '{found.Identity.Name}' has ROMs, which are files of this host that no archive can hold.");
        }

        using IDisposable? held = data.HoldFiles(record);

        // What is exported is what was verified: files do not change once they have their name.
        await Task.Run(() => data.VerifyAsync(record, progress: null, cancellationToken), cancellationToken).ConfigureAwait(false);
        try
        {
            using ArchivedVolumes? volumes = await data.ArchiveVolumesAsync(record, cancellationToken).ConfigureAwait(false);
            await Task.Run(() => Export(found, record, volumes, full, known, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        catch (BlockDeviceException error)
        {
            throw new StorageException(full, $"The archive '{full}' was not written. {error.Message}", error.Error == BlockDeviceError.NoSpace);
        }
        catch (DiskImageException error)
        {
            throw new StorageException(full, $"The archive '{full}' was not written. {error.Message}");
        }
    }

    public async Task<Checkpoint> ImportAsync(string path, string? name = null, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        using Rundown.Scope scope = platform.Rundown.Enter();
        string full = System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(path));
        return await Task.Run(() => ImportCoreAsync(full, name, cancellationToken), cancellationToken).ConfigureAwait(false);
    }

    private CheckpointRecord RecordOf(NameOrUuid checkpoint) =>
        (CheckpointRecord?)checkpoints.Find(checkpoint).Save(data)
        ?? throw new PlatformException(PlatformErrorCode.WrongState, $"Checkpoint '{checkpoint}' is in state 'starting', wait until it is ready");

    private void Export(
        StoredCheckpoint checkpoint,
        CheckpointRecord record,
        ArchivedVolumes? archivedVolumes,
        string path,
        IReadOnlySet<string>? known,
        CancellationToken cancellationToken)
    {
        using ArchiveWriter archive = new(path, archiveLayer, cancellationToken);
        archive.Add("oci-layout", Encode(new OciLayout(CheckpointArchive.LayoutVersion)));
        List<OciDescriptor> layers = [];
        Dictionary<string, string> files = new(StringComparer.Ordinal);
        foreach (string file in data.FilesOf(record))
        {
            string digest = data.DigestOf(file, cancellationToken);
            bool isImage = file.StartsWith(KeptImages.Folder, StringComparison.Ordinal);
            using Stream content = data.OpenRead(file);
            string title = System.IO.Path.GetFileName(file);
            layers.Add(new OciDescriptor(
                isImage ? CheckpointArchive.ImageType : CheckpointArchive.SnapshotType,
                digest,
                content.Length,
                Annotations: new Dictionary<string, string>(StringComparer.Ordinal) { [CheckpointArchive.TitleAnnotation] = title }));
            if (!isImage)
            {
                files.Add(title, digest);
            }

            if (known?.Contains(digest) != true)
            {
                archive.Add(CheckpointArchive.NameOf(digest), content);
            }
        }

        IReadOnlyList<ArchivedVolume> volumes = archivedVolumes?.Volumes ?? [];
        foreach (ImageChecksum image in volumes.SelectMany(static volume => volume.Images).DistinctBy(static image => image.Name, StringComparer.Ordinal))
        {
            string digest = CheckpointArchive.DigestOf(image);
            layers.Add(new OciDescriptor(
                CheckpointArchive.VolumeType,
                digest,
                image.Length,
                Annotations: new Dictionary<string, string>(StringComparer.Ordinal) { [CheckpointArchive.TitleAnnotation] = image.Name }));
            if (known?.Contains(digest) != true)
            {
                cancellationToken.ThrowIfCancellationRequested();
                using Stream content = archivedVolumes!.Open(image.Name);
                archive.Add(CheckpointArchive.NameOf(digest), content);
            }
        }

        byte[] config = JsonSerializer.SerializeToUtf8Bytes(
            new ArchivedCheckpoint(
                volumes.Count == 0 ? CheckpointArchive.VersionWithoutVolumes : CheckpointArchive.Version,
                checkpoint.Identity.Uuid,
                record with { Order = 0, Lineage = null, UnusedSince = null, Machine = null },
                checkpoint.Ancestors,
                data.MachineOf(record.Snapshot),
                files)
            {
                Volumes = volumes.Count == 0 ? null : volumes,
            },
            OciSerializer.Default.ArchivedCheckpoint);
        OciDescriptor configDescriptor = Add(archive, config, CheckpointArchive.ConfigType);
        byte[] manifest = JsonSerializer.SerializeToUtf8Bytes(
            new OciManifest(2, configDescriptor, layers, CheckpointArchive.ManifestType, CheckpointArchive.ArtifactType),
            OciSerializer.Default.OciManifest);
        OciDescriptor manifestDescriptor = Add(archive, manifest, CheckpointArchive.ManifestType) with
        {
            ArtifactType = CheckpointArchive.ArtifactType,
            Annotations = new Dictionary<string, string>(StringComparer.Ordinal) { [CheckpointArchive.NameAnnotation] = record.Name },
        };
        archive.Add(
            "index.json",
            JsonSerializer.SerializeToUtf8Bytes(
                new OciIndex(2, [manifestDescriptor], CheckpointArchive.IndexType),
                OciSerializer.Default.OciIndex));
        cancellationToken.ThrowIfCancellationRequested();
        archive.Complete();
    }

    private static OciDescriptor Add(ArchiveWriter archive, byte[] content, string type)
    {
        string digest = CheckpointArchive.DigestOf(content);
        archive.Add(CheckpointArchive.NameOf(digest), content);
        return new OciDescriptor(type, digest, content.Length);
    }

    private static byte[] Encode(OciLayout layout) => JsonSerializer.SerializeToUtf8Bytes(layout, OciSerializer.Default.OciLayout);

    private async Task<Checkpoint> ImportCoreAsync(string path, string? name, CancellationToken cancellationToken)
    {
        using CheckpointArchive archive = CheckpointArchive.Open(path, archiveLayer);
        ArchivedCheckpoint archived = archive.Checkpoint;
        if (archived.Files.Count > 0 && data.FindIncompatibility(archived.Machine) is { } missing)
        {
            throw new CheckpointArchiveException(
                path,
                isIncompatible: true,
                $"The checkpoint in '{path}' cannot run on this host: {missing}. Nothing was imported. Import it on a host like the one that it was taken on.");
        }

        // What is being removed is not there.
        await data.CollectedAsync().ConfigureAwait(false);
        Dictionary<string, string> present = data.FindPresent(archived, cancellationToken);
        archive.Verify(present.ContainsValue, cancellationToken);
        if (name is not null)
        {
            ResourceName.Require(name);
        }

        CheckpointRecord record = archived.Checkpoint with { Name = name ?? archived.Checkpoint.Name };
        ResourceName.Require(record.Name);
        return await checkpointStore.ImportAsync(
            archived.Uuid,
            record,
            archived.History,
            () => data.ImportAsync(archive, present, cancellationToken),
            data).ConfigureAwait(false);
    }
}

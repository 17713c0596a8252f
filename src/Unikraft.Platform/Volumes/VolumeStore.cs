using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Volumes;

internal sealed class VolumeStore(PlatformContext platform, ResourceRegistry<InstanceController> instances) : IVolumeStore
{
    private const int CopyBytes = 1 << 20;

    // One at a time: what is written down last must be what was changed last, and one that is taken back must not take another along.
    private readonly VolumeTurn _patches = new();

    private VolumeCatalog Catalog => platform.Volumes;

    public async Task<Volume> CreateAsync(CreateVolumeRequest request, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        VolumeRules.Require(request);
        ResourceMetadata metadata = ResourceMetadata.Of(request.Tags, request.DeleteLock, autokill: null);
        StoredVolume? template = request.Template is { } reference ? FindTemplate(reference) : null;
        return Catalog.Describe(await CreateAsync(request, template, owner: null, metadata, cancellationToken).ConfigureAwait(false));
    }

    /// <summary>Makes a volume that an instance owns.</summary>
    public Task<StoredVolume> CreateOwnedAsync(InstanceVolume volume, Guid owner, CancellationToken cancellationToken) => CreateAsync(
        new CreateVolumeRequest { SizeMb = volume.SizeMb, Filesystem = volume.Filesystem },
        template: null,
        owner,
        ResourceMetadata.None,
        cancellationToken);

    public async Task<Volume> CloneAsync(NameOrUuid volume, CloneVolumeRequest? request = null, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        StoredVolume source = Catalog.Find(volume);
        ResourceMetadata metadata = ResourceMetadata.Of(request?.Tags, deleteLock: false, autokill: null);
        if (source.Record.IsTemplate || !source.IsBlock)
        {
            throw new InvalidRequestException(source.IsBlock
                ? $"The {source.Title} is a template: create a volume from it with 'template'"
                : $"The {source.Title} is a directory of the host, which cannot be cloned");
        }

        ResourceIdentity identity = Catalog.Reserve(request?.Name);
        try
        {
            StoredVolume clone = await InTurnAsync(
                source,
                () => Catalog.CloneAsync(source, identity, owner: null, metadata, cancellationToken),
                cancellationToken).ConfigureAwait(false);
            platform.Logger.VolumeCreated(identity.Name, identity.Uuid);
            return Catalog.Describe(clone);
        }
        catch
        {
            Catalog.Unreserve(identity);
            throw;
        }
    }

    public async Task<Volume> AttachAsync(NameOrUuid volume, AttachVolumeRequest request, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        VolumeRules.RequireAt(request.At);
        StoredVolume found = Catalog.Find(volume);
        Guid instance = instances.Find(request.Instance).Identity.Uuid;
        await Catalog.SettleAsync(instance, cancellationToken).ConfigureAwait(false);
        await Catalog.SettleAsync(found, cancellationToken).ConfigureAwait(false);
        Catalog.Attach(found, instance, request, isPending: !Catalog.IsFree(instance));
        await platform.CommitAsync().ConfigureAwait(false);
        return Catalog.Describe(found);
    }

    public async Task<Volume> DetachAsync(NameOrUuid volume, NameOrUuid? from = null, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        StoredVolume found = Catalog.Find(volume);
        Guid? instance = from is { } reference ? instances.Find(reference).Identity.Uuid : null;
        await Catalog.SettleAsync(found, cancellationToken).ConfigureAwait(false);
        await Catalog.DetachAsync(found, instance).ConfigureAwait(false);
        await platform.CommitAsync().ConfigureAwait(false);
        return Catalog.Describe(found);
    }

    public async Task<Volume> ResizeAsync(NameOrUuid volume, int sizeMb, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        long size = VolumeRules.RequireSize(sizeMb);
        StoredVolume found = Catalog.Find(volume);
        await Catalog.SettleAsync(found, cancellationToken).ConfigureAwait(false);
        await InTurnAsync(
            found,
            async () =>
            {
                RequireUnused(found, "resize");
                if (found.Record.IsTemplate || !found.IsBlock || size < found.Record.Size)
                {
                    throw new InvalidRequestException($"The {found.Title} of {found.Record.Size >> 20} MiB cannot be resized to {sizeMb} MiB: only volumes that are no templates and no directories can, and only grow");
                }

                // Two places say how large it is: what is written down first is completed, or taken back, from what became of the other.
                Catalog.SettleSize(found);
                Catalog.Update(found, record => record with { ResizingTo = size });
                try
                {
                    VolumeDisk disk = await Catalog.OpenDiskAsync(found.Record, isReadOnly: false, cancellationToken).ConfigureAwait(false);
                    await using (disk.ConfigureAwait(false))
                    {
                        await disk.ResizeAsync(size, cancellationToken).ConfigureAwait(false);
                    }
                }
                catch
                {
                    Catalog.TrySettleSize(found);
                    throw;
                }

                Catalog.SettleSize(found);
                return found;
            },
            cancellationToken).ConfigureAwait(false);
        return Catalog.Describe(found);
    }

    public async Task<Volume> ConvertAsync(NameOrUuid volume, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        StoredVolume found = Catalog.Find(volume);
        await Catalog.SettleAsync(found, cancellationToken).ConfigureAwait(false);
        await InTurnAsync(
            found,
            async () =>
            {
                if (!found.IsBlock)
                {
                    throw new InvalidRequestException($"The {found.Title} is a directory of the host, which cannot be a template");
                }

                // From now on until it is one nobody gets it.
                RequireDetached(found, Catalog.BeginConversion(found), "turn into a template");
                try
                {
                    await Task.Run(() => Catalog.FreezeAsTemplate(found, cancellationToken), cancellationToken).ConfigureAwait(false);
                }
                finally
                {
                    Catalog.EndConversion(found);
                }

                return found;
            },
            cancellationToken).ConfigureAwait(false);
        return Catalog.Describe(found);
    }

    public async Task DeleteAsync(NameOrUuid volume, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        StoredVolume found = Catalog.Find(volume);
        await Catalog.SettleAsync(found, cancellationToken).ConfigureAwait(false);
        RequireDetached(found, Catalog.UserOf(found), "delete");
        if (found.Record is { Owner: not null, IsTemplate: true })
        {
            throw new VolumeBusyException(found.Identity.Uuid, $"Cannot delete the {found.Title}: it belongs to a checkpoint or a template, and is deleted with that");
        }

        if (!await found.Retention.TryDeleteAsync().ConfigureAwait(false))
        {
            throw VolumeCatalog.NotFound(volume);
        }
    }

    public async Task<Volume> PatchAsync(NameOrUuid volume, IReadOnlyList<PatchOperation> operations, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(operations);
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        StoredVolume found = Catalog.Find(volume);
        if (operations.Any(static operation => operation is PatchOperation.SetAutokill))
        {
            throw new InvalidRequestException("Volumes have no autokill policy");
        }

        await _patches.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (!await Task.Run(() => TryPatch(found, operations), cancellationToken).ConfigureAwait(false))
            {
                throw VolumeCatalog.NotFound(volume);
            }
        }
        finally
        {
            _patches.Release();
        }

        return Catalog.Describe(found);
    }

    private bool TryPatch(StoredVolume volume, IReadOnlyList<PatchOperation> operations)
    {
        ResourceMetadata before = volume.Retention.Metadata;
        if (!volume.Retention.TryPatch(operations))
        {
            return false;
        }

        ResourceMetadata metadata = volume.Retention.Metadata;
        try
        {
            Catalog.Update(volume, record => record with { Tags = metadata.Tags, DeleteLock = metadata.DeleteLock });
            return true;
        }
        catch (StorageException)
        {
            _ = volume.Retention.TryPatch([new PatchOperation.SetTags(before.Tags), new PatchOperation.SetDeleteLock(before.DeleteLock)]);
            throw;
        }
    }

    public Volume Get(NameOrUuid volume)
    {
        platform.Rundown.ThrowIfClosed();
        return Catalog.Describe(Catalog.Find(volume));
    }

    public IReadOnlyList<Volume> List() => List(templates: false);

    public IReadOnlyList<Volume> ListTemplates() => List(templates: true);

    private void RequireUnused(StoredVolume volume, string what)
    {
        if (Catalog.IsInUse(volume))
        {
            throw new VolumeBusyException(
                volume.Identity.Uuid,
                $"Cannot {what} the {volume.Title}: an instance uses it, or continues with it from a snapshot. Stop that first");
        }
    }

    private static void RequireDetached(StoredVolume volume, ResourceIdentity? user, string what)
    {
        if (user is not null)
        {
            throw new VolumeBusyException(
                volume.Identity.Uuid,
                $"Cannot {what} the {volume.Title}: it is attached to instance '{user.Name}'. Detach it first");
        }
    }

    /// <summary>Copies what is on a disk to an empty one of its size.</summary>
    internal static async Task CopyAsync(VolumeDisk from, VolumeDisk to, CancellationToken cancellationToken)
    {
        byte[] buffer = new byte[CopyBytes];
        for (long offset = 0; offset < from.Size; offset += buffer.Length)
        {
            Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(buffer.Length, from.Size - offset));
            await from.ReadAsync(offset, part, cancellationToken).ConfigureAwait(false);

            // What is all zeroes takes no room.
            const int Cluster = 64 << 10;
            for (int at = 0; at < part.Length; at += Cluster)
            {
                Memory<byte> cluster = part.Slice(at, Math.Min(Cluster, part.Length - at));
                if (cluster.Span.ContainsAnyExcept((byte)0))
                {
                    await to.WriteAsync(offset + at, cluster, cancellationToken).ConfigureAwait(false);
                }
            }
        }

        await to.FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    private IReadOnlyList<Volume> List(bool templates)
    {
        platform.Rundown.ThrowIfClosed();
        return [.. Catalog.List().Where(volume => volume.Record.IsTemplate == templates).Select(Catalog.Describe)];
    }

    private StoredVolume FindTemplate(NameOrUuid reference)
    {
        StoredVolume template = Catalog.Find(reference);
        return template.Record.IsTemplate
            ? template
            : throw new InvalidRequestException($"The {template.Title} is no template: clone it, or turn it into one first");
    }

    private async Task<StoredVolume> CreateAsync(
        CreateVolumeRequest request,
        StoredVolume? template,
        Guid? owner,
        ResourceMetadata metadata,
        CancellationToken cancellationToken)
    {
        ResourceIdentity identity = Catalog.Reserve(request.Name);
        try
        {
            StoredVolume volume = template is not null
                ? await Catalog.CloneAsync(template, identity, owner, metadata, cancellationToken).ConfigureAwait(false)
                : await AddAsync(await MakeAsync(request, identity, owner, metadata, cancellationToken).ConfigureAwait(false)).ConfigureAwait(false);
            platform.Logger.VolumeCreated(identity.Name, identity.Uuid);
            return volume;
        }
        catch
        {
            Catalog.Unreserve(identity);
            throw;
        }

        // Not on the thread of the caller, whom the disk need not keep.
        Task<StoredVolume> AddAsync(VolumeRecord record) => Task.Run(() => Catalog.Add(identity, record, metadata), CancellationToken.None);
    }

    private async Task<VolumeRecord> MakeAsync(
        CreateVolumeRequest request,
        ResourceIdentity identity,
        Guid? owner,
        ResourceMetadata metadata,
        CancellationToken cancellationToken)
    {
        VolumeRecord record = new()
        {
            Uuid = identity.Uuid,
            Name = identity.Name,
            CreatedAt = identity.CreatedAt,
            Owner = owner,
            Filesystem = VolumeFilesystem.None,
            Tags = metadata.Tags,
            DeleteLock = metadata.DeleteLock,
        };
        switch (request)
        {
            case { HostPath: { } path }:
                return record with { HostPath = Path.GetFullPath(path), Filesystem = VolumeFilesystem.Virtiofs };
            case { CopyOf: { } file }:
                return await CopyAsync(record, file, cancellationToken).ConfigureAwait(false);
            case { BasedOn: { } file }:
                return await BaseAsync(record, file, cancellationToken).ConfigureAwait(false);
            default:
                VolumeFilesystem filesystem = request.Filesystem ?? VolumeFilesystem.Ext4;
                record = record with { Size = VolumeRules.RequireSize(request.SizeMb!.Value), Filesystem = filesystem };
                return record with
                {
                    Top = filesystem == VolumeFilesystem.None
                        ? await Catalog.MakeImageAsync(backing: null, format: null, record.Size, cancellationToken).ConfigureAwait(false)
                        : await FormatAsync(record.Size, cancellationToken).ConfigureAwait(false),
                };
        }
    }

    // The file system is a sparse raw image, which is the base of the volume: nothing needs to be copied.
    private async Task<string> FormatAsync(long size, CancellationToken cancellationToken)
    {
        string formatted = await Catalog.FillImageAsync(
            ImageDirectory.RawSuffix,
            path => Ext4Formatter.FormatAsync(platform.Settings.MkfsExt4Path, path, size, cancellationToken)).ConfigureAwait(false);
        try
        {
            return await Catalog.MakeImageAsync(formatted, VolumeCatalog.FormatOf(formatted), size, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            Catalog.ReleaseImage(formatted);
            throw;
        }
    }

    private async Task<VolumeRecord> CopyAsync(VolumeRecord record, DiskImageFile file, CancellationToken cancellationToken)
    {
        // A raw file is read as the base of an overlay that is thrown away.
        (VolumeDisk disk, string? temporary) = await OpenAsync(file, cancellationToken).ConfigureAwait(false);
        try
        {
            await using (disk.ConfigureAwait(false))
            {
                string top = await Catalog.MakeImageAsync(backing: null, format: null, disk.Size, cancellationToken).ConfigureAwait(false);
                try
                {
                    record = record with { Top = top, Size = disk.Size };
                    VolumeDisk copy = await Catalog.OpenDiskAsync(record, isReadOnly: false, cancellationToken).ConfigureAwait(false);
                    await using (copy.ConfigureAwait(false))
                    {
                        await CopyAsync(disk, copy, cancellationToken).ConfigureAwait(false);
                    }

                    return record;
                }
                catch
                {
                    Catalog.ReleaseImage(top);
                    throw;
                }
            }
        }
        finally
        {
            Catalog.ReleaseImage(temporary);
        }
    }

    private async Task<VolumeRecord> BaseAsync(VolumeRecord record, DiskImageFile file, CancellationToken cancellationToken)
    {
        (VolumeDisk disk, string? temporary) = await OpenAsync(file, cancellationToken).ConfigureAwait(false);
        await using (disk.ConfigureAwait(false))
        {
            record = record with { Size = disk.Size, Bases = disk.ListPaths().Where(path => temporary is null || !string.Equals(Path.GetFileName(path), temporary, StringComparison.Ordinal)).ToArray() };
        }

        // What is there is the volumes' own, and goes with the last one that is known to need it.
        if (record.Bases.FirstOrDefault(Catalog.IsInside) is { } inside)
        {
            Catalog.ReleaseImage(temporary);
            throw new InvalidRequestException($"'{inside}' is in the directory of the volumes: put what a volume is based on elsewhere, or copy it");
        }

        return record with
        {
            Top = temporary ?? await Catalog.MakeImageAsync(Path.GetFullPath(file.Path), VolumeDisk.Qcow2Format, record.Size, cancellationToken).ConfigureAwait(false),
        };
    }

    // A raw file cannot be opened by itself: an overlay goes over it.
    private async Task<(VolumeDisk Disk, string? Overlay)> OpenAsync(DiskImageFile file, CancellationToken cancellationToken)
    {
        const int Sector = 512;
        string path = Path.GetFullPath(file.Path);
        if (file.Format == DiskImageFormat.Qcow2)
        {
            return (await VolumeDisk.OpenAsync(path, isReadOnly: true, cancellationToken: cancellationToken).ConfigureAwait(false), null);
        }

        long size;
        using (ImageFile raw = ImageFile.Open(path, isReadOnly: true))
        {
            size = (raw.Length + Sector - 1) & -Sector;
        }

        string overlay = await Catalog.MakeImageAsync(path, RawLayer.FormatName, size, cancellationToken).ConfigureAwait(false);
        try
        {
            VolumeRecord record = new() { Uuid = default, CreatedAt = default, Top = overlay, Bases = [path] };
            return (await Catalog.OpenDiskAsync(record, isReadOnly: true, cancellationToken).ConfigureAwait(false), overlay);
        }
        catch
        {
            Catalog.ReleaseImage(overlay);
            throw;
        }
    }

    private async Task<T> InTurnAsync<T>(StoredVolume volume, Func<Task<T>> operation, CancellationToken cancellationToken)
    {
        await volume.Turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            Catalog.SetBusy(volume, true);
            return await operation().ConfigureAwait(false);
        }
        finally
        {
            Catalog.SetBusy(volume, false);
            volume.Turn.Release();
        }
    }
}

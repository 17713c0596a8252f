using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// All volumes, and which instance has which: their names, their images, and what is written down of them. What instances do with them is in the other part.
/// </summary>
/// <remarks>
/// The lock guards the fields below it, and those of <see cref="StoredVolume"/>, <see cref="InstanceVolumes"/> and <see cref="VolumeMount"/>. Nothing that may block
/// is called under it, nor anything that takes another lock but that of the image directory. It may be taken under the locks of a retention and of an instance. What takes long is ordered by the
/// turns of the volumes.
/// </remarks>
internal sealed partial class VolumeCatalog : IAsyncDisposable
{
    private readonly PlatformContext _platform;
    private readonly IFileLayer _layer;
    private readonly VolumeJournalOptions? _journalOptions;
    private readonly Lock _opening = new();
    private VolumeFiles? _unloaded;
    private VolumeFiles? _files;
    private readonly Lock _journalLock = new();

    private readonly Lock _lock = new();
    private readonly Dictionary<string, Guid> _names = new(StringComparer.Ordinal);
    private readonly StoredVolumes _volumes = new();
    private readonly Dictionary<Guid, InstanceVolumes> _instances = [];
    private readonly HashSet<Task> _background = [];

    /// <summary>Nobody wants them, but that could not be written down yet.</summary>
    private readonly List<StoredVolume> _undeleted = [];
    private long _lastOrder;
    private bool _isFrozen;

    /// <param name="platform">The platform.</param>
    /// <param name="files">The directory of the volumes; <see langword="null"/> for one that is made when it is needed.</param>
    /// <param name="layer">The file system of that; that of the host when <see langword="null"/>.</param>
    /// <param name="journalOptions">How its journal is kept; as usual when <see langword="null"/>.</param>
    public VolumeCatalog(PlatformContext platform, VolumeFiles? files, IFileLayer? layer = null, VolumeJournalOptions? journalOptions = null)
    {
        _journalOptions = journalOptions;
        _platform = platform;
        _layer = layer ?? HostFileLayer.Default;
        _checksums = new Lazy<ImageChecksums>(() => new ImageChecksums(Images));
        if (files is not null)
        {
            _unloaded = files;
            _ = Images;
        }
    }

    /// <summary>Where volumes are kept unless a directory was named for them; <see langword="null"/> when they are not kept.</summary>
    private static string? FolderOf(PlatformSettings settings) => settings.DataDirectory is { } data ? Path.Combine(data, "volumes") : null;

    /// <summary>Opens the volumes that were kept in the data directory, if there are any.</summary>
    /// <exception cref="StorageException">They are open elsewhere or damaged, or the host refused.</exception>
    public void OpenKept()
    {
        if (FolderOf(_platform.Settings) is { } folder && new DataFiles(_layer, folder, isSynced: true).Stat("") is { IsDirectory: true })
        {
            _ = Images;
        }
    }

    /// <summary>The platform ends: from now on volumes stay what they are, although instances go.</summary>
    public void Freeze()
    {
        lock (_lock)
        {
            _isFrozen = true;
        }
    }

    private ImageDirectory Images => Files.Images;

    // An error of the host is not remembered: the next one who needs them tries again.
    private VolumeFiles Files
    {
        get
        {
            if (Volatile.Read(ref _files) is { } opened)
            {
                return opened;
            }

            lock (_opening)
            {
                if (_files is { } openedMeanwhile)
                {
                    return openedMeanwhile;
                }

                VolumeFiles files = _unloaded ?? VolumeFiles.Open(FolderOf(_platform.Settings), _platform.Settings.DataDirectory is not null, _platform.Logger, _layer, _journalOptions);
                _unloaded = null;
                try
                {
                    Volatile.Write(ref _files, Load(files));
                    return files;
                }
                catch
                {
                    files.Dispose();
                    throw;
                }
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await WhenIdleAsync().ConfigureAwait(false);
        _foldRetry?.Dispose();
        _flattening.Dispose();
        _files?.Dispose();
    }

    /// <summary>Waits for what is being done in the background.</summary>
    public async Task WhenIdleAsync()
    {
        while (true)
        {
            Task[] under;
            lock (_lock)
            {
                under = [.. _background];
            }

            if (under.Length == 0)
            {
                return;
            }

            await Task.WhenAll(under).ConfigureAwait(false);
        }
    }

    /// <exception cref="ResourceNotFoundException">There is none.</exception>
    public StoredVolume Find(NameOrUuid reference)
    {
        lock (_lock)
        {
            Guid uuid = reference.Uuid ?? _names.GetValueOrDefault(reference.Name!);
            return _volumes.TryFind(uuid, out StoredVolume? volume) && volume.IsListed ? volume : throw NotFound(reference);
        }
    }

    public static ResourceNotFoundException NotFound(NameOrUuid reference) => new("volume", reference);

    /// <summary>All volumes, oldest first.</summary>
    public IReadOnlyList<StoredVolume> List()
    {
        lock (_lock)
        {
            return [.. _volumes.All.Where(static volume => volume.IsListed).OrderBy(static volume => volume.Identity.Order)];
        }
    }

    /// <summary>The volumes that a snapshot owns.</summary>
    public IReadOnlyList<StoredVolume> OwnedBy(Guid owner)
    {
        lock (_lock)
        {
            return [.. _volumes.OwnedBy(owner)];
        }
    }

    public Volume Describe(StoredVolume volume)
    {
        // Neither lock within the other.
        ResourceMetadata metadata = volume.Retention.Metadata;
        VolumeMount[] mounts;
        lock (_lock)
        {
            mounts = [.. volume.Mounts];
        }

        bool isWanted = mounts.Any(mount => mount.Pending != VolumeUpdate.Attach && mount.Owner.Status?.Invoke().State is not (null or InstanceState.Stopped));
        VolumeMount[] waiting = [.. mounts.Where(static mount => !IsFree(mount.Owner))];
        lock (_lock)
        {
            VolumeRecord record = volume.Record;
            return new Volume
            {
                Uuid = record.Uuid,
                Name = record.Name,
                CreatedAt = record.CreatedAt,
                State = StateOf(volume, mounts, isWanted),
                SizeMb = (int)((record.Size + (1 << 20) - 1) >> 20),
                Persistent = record.Owner is null,
                AttachedTo =
                [
                    .. mounts.Select(mount => new VolumeAttachment
                    {
                        InstanceUuid = mount.Owner.Identity.Uuid,
                        InstanceName = mount.Owner.Identity.Name,
                        At = mount.At,
                        ReadOnly = mount.IsReadOnly,
                        IsMounted = mount.Disk is not null,
                        Pending = waiting.Contains(mount) ? mount.Pending : null,
                    }),
                ],
                Filesystem = record.Filesystem,
                HostPath = record.HostPath,
                Depth = record.Top is { } top ? Images.DepthOf(top) : 0,
                Error = (volume.Failure ?? volume.LastError)?.Message,
                Tags = metadata.Tags,
                DeleteLock = metadata.DeleteLock,
            };
        }
    }

    /// <summary>Makes a volume of an image that nobody has yet, and writes it down.</summary>
    /// <param name="identity">What it is known by.</param>
    /// <param name="record">What is to be written down. Its top belongs to the volume from now on.</param>
    /// <param name="metadata">Tags and delete lock.</param>
    /// <exception cref="StorageException">It cannot be written down. The image is gone then.</exception>
    public StoredVolume Add(ResourceIdentity identity, VolumeRecord record, ResourceMetadata metadata)
    {
        record = record with { Order = identity.Order };
        StoredVolume volume = Make(identity, record, metadata);
        try
        {
            Commit(new VolumeChange { Set = [record] });
        }
        catch
        {
            Remove(volume);
            Unreserve(identity);
            volume.Retention.Dispose();
            ReleaseImage(record.Top);
            throw;
        }

        Publish(volume);
        return volume;
    }

    /// <summary>Reserves a name; a generated one when none is requested.</summary>
    /// <exception cref="NameConflictException">The name is taken.</exception>
    public ResourceIdentity Reserve(string? requested)
    {
        if (requested is not null)
        {
            ResourceName.Require(requested);
        }

        // So that names that are written down already are known.
        _ = Images;
        DateTimeOffset now = _platform.TimeProvider.GetUtcNow();
        Guid uuid = Guid.CreateVersion7(now);
        lock (_lock)
        {
            string name = requested ?? ResourceName.Generate("vol");
            while (!_names.TryAdd(name, uuid))
            {
                name = requested is null ? ResourceName.Generate("vol") : throw new NameConflictException("A volume", requested);
            }

            return new ResourceIdentity(uuid, name, now, ++_lastOrder);
        }
    }

    /// <summary>What a volume without a name is known by.</summary>
    public ResourceIdentity ReserveUnnamed()
    {
        DateTimeOffset now = _platform.TimeProvider.GetUtcNow();
        Guid uuid = Guid.CreateVersion7(now);
        lock (_lock)
        {
            return new ResourceIdentity(uuid, uuid.ToString("D"), now, ++_lastOrder);
        }
    }

    /// <summary>Gives a reserved name back.</summary>
    public void Unreserve(ResourceIdentity identity)
    {
        lock (_lock)
        {
            if (_names.TryGetValue(identity.Name, out Guid holder) && holder == identity.Uuid)
            {
                _names.Remove(identity.Name);
            }
        }
    }

    /// <summary>Makes an empty image over another one, or over nothing. Takes as long for any size. Nobody needs it yet.</summary>
    /// <param name="backing">The image beneath: its name in the directory, or its path elsewhere.</param>
    /// <param name="format">The format of that.</param>
    /// <param name="size">The size of the disk in bytes.</param>
    /// <param name="cancellationToken">Cancels it; nothing remains then.</param>
    public async Task<string> MakeImageAsync(string? backing, string? format, long size, CancellationToken cancellationToken)
    {
        string name = ImageDirectory.NewName();
        string path = Images.PathOf(name);
        await Task.Run(() =>
        {
            using ImageFile file = ImageFile.Create(path, Images.Files.Layer);
            try
            {
                Qcow2Image.Create(file, size, backing: backing is null ? null : (backing, format!));
                cancellationToken.ThrowIfCancellationRequested();
            }
            catch
            {
                ImageFile.Discard(path, Images.Files.Layer);
                throw;
            }
        }, cancellationToken).ConfigureAwait(false);
        Images.Add(name, backing is not null && !backing.Contains('/', StringComparison.Ordinal) ? backing : null);
        return name;
    }

    public static string FormatOf(string top) =>
        top.EndsWith(ImageDirectory.RawSuffix, StringComparison.Ordinal) ? RawLayer.FormatName : Qcow2Image.FormatName;

    /// <summary>Makes an image whose contents others put there. Nobody needs it yet.</summary>
    public async Task<string> FillImageAsync(string suffix, Func<string, Task> fill)
    {
        string name = ImageDirectory.NewName(suffix);
        string path = Images.PathOf(name);
        try
        {
            await fill(path).ConfigureAwait(false);
        }
        catch
        {
            ImageFile.Discard(path, Images.Files.Layer);
            throw;
        }

        Images.Add(name, backing: null);
        return name;
    }

    /// <summary>Whether a file is in the directory of the volumes.</summary>
    public bool IsInside(string path) =>
        string.Equals(Path.GetDirectoryName(Path.GetFullPath(path)), Path.TrimEndingDirectorySeparator(Images.Path), StringComparison.Ordinal);

    /// <summary>An image that was made is not needed after all.</summary>
    /// <returns>Whether there is an image that only one needs from now on.</returns>
    public bool ReleaseImage(string? name) => name is not null && Images.Release(name);

    /// <summary>Opens the disk of an image of the directory.</summary>
    public Task<VolumeDisk> OpenDiskAsync(VolumeRecord record, bool isReadOnly, CancellationToken cancellationToken) =>
        VolumeDisk.OpenAsync(Images.PathOf(record.Top!), isReadOnly, Images.Path, Images.Layers, record.Bases, cancellationToken);

    /// <summary>Writes a change down, durably, and then makes it.</summary>
    /// <exception cref="StorageException">The host cannot write. Nothing has changed.</exception>
    public void Commit(VolumeChange change) => Commit(() => change);

    /// <summary>Writes a change down, durably, and then makes it.</summary>
    /// <param name="make">Makes it of what is written down until then. Others wait meanwhile.</param>
    /// <exception cref="StorageException">The host cannot write. Nothing has changed.</exception>
    public void Commit(Func<VolumeChange> make)
    {
        lock (_journalLock)
        {
            VolumeChange change = make();
            if (change.Set.Any(IsNewTop))
            {
                // A record of an image whose name is not on the disk would be one of nothing.
                Images.SyncNames();
            }

            Files.Journal.Append(change);
            foreach (VolumeRecord record in change.Set)
            {
                SetTop(record);
            }
        }

        // There is room again.
        StoredVolume[] undeleted;
        lock (_lock)
        {
            undeleted = [.. _undeleted];
            _undeleted.Clear();
        }

        BeginDelete(undeleted);
    }

    /// <summary>Changes what is written down of a volume, durably.</summary>
    public void Update(StoredVolume volume, Func<VolumeRecord, VolumeRecord> change) =>
        Commit(() => new VolumeChange { Set = [change(volume.Record)] });

    /// <summary>Completes a resizing that was interrupted, or takes it back: what the image says holds. The caller has the turn of the volume, to which nobody writes.</summary>
    /// <exception cref="DiskImageException">The image cannot be read.</exception>
    /// <exception cref="StorageException">The host cannot write.</exception>
    public void SettleSize(StoredVolume volume)
    {
        if (volume.Record is { ResizingTo: { } wanted, Top: { } top })
        {
            long found = Images.SizeOf(top);
            Update(volume, record => record with { Size = found == wanted ? found : record.Size, ResizingTo = null });
        }
    }

    /// <summary>Does that if it can be done now; else it is done before the volume is used.</summary>
    public void TrySettleSize(StoredVolume volume)
    {
        try
        {
            SettleSize(volume);
        }
        catch (PlatformException error)
        {
            _platform.Logger.VolumeWorkFailed(error);
        }
    }

    /// <summary>Deletes volumes in the background.</summary>
    public void BeginDelete(IReadOnlyList<StoredVolume> volumes)
    {
        if (volumes.Count > 0)
        {
            Begin(() => DeleteAsync(volumes));
        }
    }

    /// <summary>Deletes volumes that nobody uses any more, and that have no delete lock to be asked.</summary>
    /// <exception cref="StorageException">The host cannot write. What could not be deleted is, when something else can be written down.</exception>
    public async Task DeleteAsync(IReadOnlyList<StoredVolume> volumes)
    {
        StorageException? failure = null;
        foreach (StoredVolume volume in volumes)
        {
            if (Remove(volume))
            {
                volume.Retention.Dispose();
                try
                {
                    await ReleaseAsync(volume).ConfigureAwait(false);
                }
                catch (StorageException error)
                {
                    failure ??= error;
                    lock (_lock)
                    {
                        volume.IsListed = false;
                        _undeleted.Add(volume);
                    }
                }
            }
        }

        if (failure is not null)
        {
            throw failure;
        }
    }

    /// <summary>Does something in the background, whose failure is logged.</summary>
    public void Begin(Func<Task> work)
    {
        lock (_lock)
        {
            Task? task = null;
            task = Detached.Begin(async () =>
            {
                try
                {
                    await work().ConfigureAwait(false);
                }
                catch (Exception error)
                {
                    _platform.Logger.VolumeWorkFailed(error);
                }
                finally
                {
                    lock (_lock)
                    {
                        _background.Remove(task!);
                    }
                }
            });
            _background.Add(task);
        }
    }

    private static VolumeState StateOf(StoredVolume volume, VolumeMount[] mounts, bool isWanted) => volume switch
    {
        { Failure: not null } => VolumeState.Error,
        { Record.IsTemplate: true } => VolumeState.Template,
        _ when isWanted => VolumeState.Mounted,
        { IsBusy: true } => VolumeState.Busy,
        _ => Array.Exists(mounts, static mount => mount.Pending != VolumeUpdate.Attach) ? VolumeState.Idle : VolumeState.Available,
    };

    private bool IsNewTop(VolumeRecord record)
    {
        lock (_lock)
        {
            return record.Top is not null
                && !string.Equals(_volumes.Find(record.Uuid)?.Record.Top, record.Top, StringComparison.Ordinal);
        }
    }

    private VolumeFiles Load(VolumeFiles files)
    {
        files.Images.Use(_platform.Hypervisor.GetFeature<IDirectorySync>());
        files.Images.SyncName();
        files.Images.SyncNames();
        files.Journal.SyncNames = files.Images.SyncNames;
        bool allFound = VolumeJournal.FindDamage(files.Images.Files) is null;

        // Records of before orders were kept have none; they are the oldest, in the order that their clocks say.
        foreach (VolumeRecord record in files.Records.Values.OrderBy(static record => record.Order).ThenBy(static record => record.CreatedAt).ThenBy(static record => record.Uuid))
        {
            _lastOrder = Math.Max(_lastOrder + 1, record.Order);
            ResourceIdentity identity = new(record.Uuid, record.Name ?? record.Uuid.ToString("D"), record.CreatedAt, _lastOrder);
            StoredVolume volume = new(identity, record) { IsListed = record.Rom is null };
            volume.Retention = RetentionOf(volume, ResourceMetadata.Of(record.Tags, record.DeleteLock, autokill: null));
            try
            {
                if (record.Top is { } top)
                {
                    files.Images.Find(top);
                    files.Images.Hold(top);
                    if (record.Damage is { } damage)
                    {
                        throw new DataDamageException(
                            Path.Combine(files.Images.Path, VolumeJournal.FileName),
                            [record.Uuid],
                            $"The {volume.Title} may not be all there: {damage}. Put a sound copy of the folder there; or take what '{files.Images.PathOf(top)}' has with qemu-img convert, and delete the volume.");
                    }

                    files.Images.RepairFound(top, record.Bases);
                }
            }
            catch (PlatformException error)
            {
                // The others can be used all the same.
                volume.Failure = error;
                allFound = false;
                _platform.Logger.VolumeUnusable(error, identity.Name, identity.Uuid);
            }

            _volumes.Add(volume);
            if (record.Name is { } name)
            {
                _names[name] = record.Uuid;
            }
        }

        // What a damaged volume needs is not known.
        if (allFound)
        {
            files.Images.DeleteUnknown();
        }

        return files;
    }

    private StoredVolume Make(ResourceIdentity identity, VolumeRecord record, ResourceMetadata metadata)
    {
        StoredVolume volume = new(identity, record with { Top = null });
        volume.Retention = RetentionOf(volume, metadata);
        lock (_lock)
        {
            _volumes.Add(volume);
        }

        return volume;
    }

    private void Publish(StoredVolume volume)
    {
        lock (_lock)
        {
            volume.IsListed = true;
        }
    }

    private Retention RetentionOf(StoredVolume volume, ResourceMetadata metadata) => new(
        _platform,
        "volume",
        volume.Identity,
        metadata,
        () => Remove(volume),
        () => ReleaseAsync(volume));

    // A volume lets go of the image that was its top before. Under the lock of the journal.
    private void SetTop(VolumeRecord record)
    {
        string? before;
        lock (_lock)
        {
            if (!_volumes.TryFind(record.Uuid, out StoredVolume? volume))
            {
                return;
            }

            before = volume.Record.Top;
            _volumes.Set(volume, record);
        }

        if (!string.Equals(before, record.Top, StringComparison.Ordinal))
        {
            if (record.Top is not null)
            {
                Images.Hold(record.Top);
            }

            ReleaseImage(before);
        }
    }

    // Called under the lock of the retention. The name is taken until it is written down that the volume is gone.
    private bool Remove(StoredVolume volume)
    {
        lock (_lock)
        {
            if (volume.Mounts.Count > 0 || !_volumes.Remove(volume.Identity.Uuid))
            {
                return false;
            }

            volume.IsListed = false;
            return true;
        }
    }

    /// <exception cref="StorageException">The host cannot write. The volume is there again.</exception>
    private async Task ReleaseAsync(StoredVolume volume)
    {
        bool isForOne = false;
        await volume.Turn.WaitAsync().ConfigureAwait(false);
        try
        {
            await Task.Run(() =>
            {
                Commit(new VolumeChange { Removed = [volume.Identity.Uuid] });
                Unreserve(volume.Identity);
                isForOne = ReleaseImage(volume.Record.Top);
                if (volume.UnsettledFold is { } fold && !Images.Has(fold.Top))
                {
                    Images.Discard(fold.Folded);
                }
            }).ConfigureAwait(false);
        }
        catch (StorageException)
        {
            volume.Retention = RetentionOf(volume, volume.Retention.Metadata);
            lock (_lock)
            {
                _volumes.Add(volume);
                volume.IsListed = true;
            }

            throw;
        }
        finally
        {
            volume.Turn.Release();
        }

        if (volume.Record.Rom is null)
        {
            _platform.Logger.VolumeDeleted(volume.Identity.Name, volume.Identity.Uuid);
        }

        // All volumes are looked at then: not for each of many that nothing else is based on.
        if (isForOne || HasFoldFailed())
        {
            BeginFold();
        }
    }
}

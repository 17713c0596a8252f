using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Volumes;

/// <content>What instances do with volumes: having them, opening and closing them, cutting them for a snapshot, and cloning them from one.</content>
internal sealed partial class VolumeCatalog
{
    public InstanceVolumes? Find(Guid instance)
    {
        lock (_lock)
        {
            return _instances.TryGetValue(instance, out InstanceVolumes? volumes) && !volumes.IsEmpty ? volumes : null;
        }
    }

    /// <summary>What an instance has, by the order in which it was attached.</summary>
    public IReadOnlyList<AttachedVolume> ListOf(Guid instance)
    {
        lock (_lock)
        {
            return _instances.TryGetValue(instance, out InstanceVolumes? volumes) ? volumes.Describe() : [];
        }
    }

    /// <summary>Gives a new instance its volumes and ROMs: clones of those of the snapshot that it continues from, and what its request names.</summary>
    /// <param name="identity">The instance.</param>
    /// <param name="snapshot">The snapshot.</param>
    /// <param name="request">The request.</param>
    /// <param name="createOwned">Makes a volume that the instance owns.</param>
    /// <param name="cancellationToken">Cancels; nothing remains then.</param>
    public async Task PrepareAsync(
        ResourceIdentity identity,
        IMachineSnapshot? snapshot,
        CreateInstanceRequest request,
        Func<InstanceVolume, Task<StoredVolume>> createOwned,
        CancellationToken cancellationToken)
    {
        InstanceVolumes volumes = new(identity);
        lock (_lock)
        {
            _instances.Add(identity.Uuid, volumes);
        }

        try
        {
            if (snapshot is VolumeSnapshot source)
            {
                volumes.Roms = source.Roms;
                foreach (SnapshotVolume volume in source.Volumes)
                {
                    StoredVolume clone = await CloneAsync(volume.Template, ReserveUnnamed(), identity.Uuid, ResourceMetadata.None).ConfigureAwait(false);
                    Mount(new VolumeMount(clone, volumes, volume.Slot, volume.At, volume.IsReadOnly));
                    cancellationToken.ThrowIfCancellationRequested();
                }
            }

            foreach (InstanceVolume wanted in request.Volumes ?? [])
            {
                int slot = volumes.SlotFor(wanted.At);
                StoredVolume volume = wanted.Volume is { } existing ? Find(existing) : await createOwned(wanted).ConfigureAwait(false);
                await SettleAsync(volume, cancellationToken).ConfigureAwait(false);
                lock (_lock)
                {
                    RequireAttachable(volume, wanted.ReadOnly);
                    MountLocked(new VolumeMount(volume, volumes, slot, wanted.At, wanted.ReadOnly));
                }

                cancellationToken.ThrowIfCancellationRequested();
            }

            foreach (InstanceRom rom in request.Roms ?? [])
            {
                // Opened for nothing, so that what is wrong with it is heard of now.
                ImageFile.Open(rom.Path, isReadOnly: true).Dispose();
                lock (_lock)
                {
                    volumes.Add(rom);
                }

            }
        }
        catch
        {
            await ForgetAsync(identity.Uuid).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Tells how the instance is asked for its state, and that what it has is to be written down.</summary>
    public void Watch(Guid instance, Func<(InstanceState State, bool HasSnapshot)> status, Action changed)
    {
        lock (_lock)
        {
            if (_instances.TryGetValue(instance, out InstanceVolumes? volumes))
            {
                volumes.Status = status;
                volumes.Changed = changed;
            }
        }
    }

    /// <summary>An instance is gone. What it owns is deleted, and what else it had is free.</summary>
    public async Task ForgetAsync(Guid instance)
    {
        List<StoredVolume> owned = [];
        lock (_lock)
        {
            if (!_instances.Remove(instance, out InstanceVolumes? volumes))
            {
                return;
            }

            foreach (VolumeMount mount in volumes.Mounts)
            {
                mount.Volume.Mounts.Remove(mount);
                if (mount.Volume.Record.Owner == instance)
                {
                    owned.Add(mount.Volume);
                }
            }

            volumes.Mounts.Clear();
            if (_isFrozen)
            {
                return;
            }
        }

        await DeleteOwnedAsync(owned).ConfigureAwait(false);
    }

    /// <summary>Opens what an instance has, for a machine of it.</summary>
    /// <param name="volumes">The instance.</param>
    /// <param name="boots">Whether the machine boots: then what waits for a stop is done.</param>
    /// <param name="cancellationToken">Cancels the waiting for an earlier machine.</param>
    public async Task<OpenVolumes> OpenAsync(InstanceVolumes volumes, bool boots, CancellationToken cancellationToken)
    {
        while (true)
        {
            Task earlier;
            lock (_lock)
            {
                if (volumes.InUse is null)
                {
                    volumes.InUse = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                    break;
                }

                earlier = volumes.InUse.Task;
            }

            await earlier.WaitAsync(cancellationToken).ConfigureAwait(false);
        }

        List<VolumeMount> mounts = [];
        List<MachineDisk> disks = [];
        List<RomMount> roms = [];
        try
        {
            await ApplyPendingAsync(volumes, detach: boots).ConfigureAwait(false);
            VolumeMount[] wanted;
            IReadOnlyList<RomMount> wantedRoms;
            lock (_lock)
            {
                (wanted, wantedRoms) = ([.. volumes.Mounts], volumes.Roms);
            }

            foreach (VolumeMount mount in wanted)
            {
                disks.Add(await OpenAsync(mount, boots, cancellationToken).ConfigureAwait(false));
                mounts.Add(mount);
            }

            foreach (RomMount rom in wantedRoms)
            {
                disks.Add(new MachineDisk
                {
                    Slot = rom.Slot,
                    Device = new RawBlockDevice(ImageFile.Open(rom.Path, isReadOnly: true)),
                    Id = rom.Name,
                    At = rom.At,
                });
                roms.Add(rom);
            }

            return new OpenVolumes(volumes, mounts, roms, disks);
        }
        catch
        {
            await CloseAsync(new OpenVolumes(volumes, mounts, roms, disks)).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Closes what a machine had open.</summary>
    public async Task CloseAsync(OpenVolumes open)
    {
        foreach (VolumeMount mount in open.Mounts)
        {
            await CloseAsync(mount).ConfigureAwait(false);
        }

        foreach (MachineDisk rom in open.Disks.Where(static disk => disk.Slot >= MachineDisk.VolumeSlots))
        {
            await rom.Device.DisposeAsync().ConfigureAwait(false);
        }

        if (IsFree(open.Owner) && !Volatile.Read(ref _isFrozen))
        {
            await ApplyPendingAsync(open.Owner, detach: true).ConfigureAwait(false);
        }

        TaskCompletionSource? used;
        lock (_lock)
        {
            (used, open.Owner.InUse) = (open.Owner.InUse, null);
        }

        used?.SetResult();
    }

    /// <summary>Takes a snapshot of a machine, and of its volumes at the same moment.</summary>
    public async Task<IMachineSnapshot> CaptureAsync(
        OpenVolumes open,
        Func<IDiskCut, ValueTask<IMachineSnapshot>> capture,
        CancellationToken cancellationToken)
    {
        using Turns turns = await Turns.TakeAsync(open.Mounts.Select(static mount => mount.Volume), cancellationToken).ConfigureAwait(false);
        VolumeMount[] written = [.. open.Mounts.Where(static mount => !mount.IsReadOnly)];
        string[] names = [.. written.Select(static _ => ImageDirectory.NewName())];
        List<PreparedOverlay> overlays = [];
        IMachineSnapshot? machine = null;
        try
        {
            foreach (VolumeMount mount in written)
            {
                await mount.Disk!.WhenPublishedAsync().ConfigureAwait(false);
                await TrySettleFoldAsync(mount.Volume, cancellationToken).ConfigureAwait(false);
            }

            for (int i = 0; i < written.Length; i++)
            {
                overlays.Add(await written[i].Disk!.PrepareOverlayAsync(Images.PathOf(names[i]), cancellationToken).ConfigureAwait(false));
            }

            DiskCutOfVolumes cut = new([.. written.Select(static mount => mount.Disk!)], [.. overlays]);
            try
            {
                machine = await capture(cut).ConfigureAwait(false);
            }
            finally
            {
                // Also when the snapshot has failed behind the cut: the volumes have new tops all the same.
                PublishCuts(written, names, cut);
            }

            List<SnapshotVolume> parts = await MakeTemplatesAsync(open.Mounts, written, cut).ConfigureAwait(false);
            return new VolumeSnapshot(this, machine, parts, open.Roms);
        }
        catch
        {
            machine?.Dispose();
            throw;
        }
        finally
        {
            foreach (PreparedOverlay overlay in overlays)
            {
                await overlay.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>Takes the volumes of an instance that does not run, if it has any.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="purpose">What for.</param>
    /// <param name="memory">A hold on the memory that goes with them, if there is one, which is taken over; and what it holds.</param>
    /// <param name="cancellationToken">Cancels the waiting for other operations.</param>
    /// <returns><see langword="null"/> when there is nothing but the image.</returns>
    public async Task<IMachineSnapshot?> CaptureStoppedAsync(
        ResourceIdentity instance,
        ClonePurpose purpose,
        (IDisposable Hold, IMachineSnapshot Snapshot)? memory,
        CancellationToken cancellationToken)
    {
        if (Find(instance.Uuid) is not { } volumes)
        {
            return null;
        }

        // What waited for the stop is done by then.
        await SettleAsync(instance.Uuid, cancellationToken).ConfigureAwait(false);
        VolumeMount[] mounts;
        IReadOnlyList<RomMount> roms;
        lock (_lock)
        {
            mounts = [.. volumes.Mounts.Where(static mount => mount.Pending != VolumeUpdate.Attach)];
            roms = volumes.Roms;
        }

        if (mounts.Length + roms.Count == 0)
        {
            return null;
        }

        RequireBlocks(mounts, purpose);
        List<SnapshotVolume> parts = [];
        try
        {
            foreach (VolumeMount mount in mounts)
            {
                using Turns turn = await Turns.TakeAsync([mount.Volume], cancellationToken).ConfigureAwait(false);
                StoredVolume template = await FreezeAsync(mount.Volume).ConfigureAwait(false);
                parts.Add(new SnapshotVolume(template, mount.Slot, mount.At, mount.IsReadOnly, mount.Volume));
            }
        }
        catch
        {
            BeginDelete([.. parts.Select(static part => part.Template)]);
            throw;
        }

        return new VolumeSnapshot(
            this,
            memory?.Snapshot is VolumeSnapshot withVolumes ? withVolumes.Machine : memory?.Snapshot,
            parts,
            roms,
            memory?.Hold);
    }

    /// <summary>Whether an instance that was made from a snapshot has got more than that has.</summary>
    /// <param name="instance">The instance, which has not run since.</param>
    /// <param name="volumes">How many volumes the snapshot has.</param>
    /// <param name="roms">How many ROMs the snapshot has.</param>
    public bool HasMore(Guid instance, int volumes, int roms)
    {
        lock (_lock)
        {
            return _instances.TryGetValue(instance, out InstanceVolumes? found)
                && (found.Mounts.Count(static mount => mount.Pending != VolumeUpdate.Attach) > volumes || found.Roms.Count > roms);
        }
    }

    /// <summary>Refuses what needs block volumes, for an instance that has another one.</summary>
    /// <exception cref="PlatformException">It has.</exception>
    public void RequireBlocks(Guid instance, ClonePurpose purpose)
    {
        VolumeMount[] mounts;
        lock (_lock)
        {
            mounts = _instances.TryGetValue(instance, out InstanceVolumes? volumes) ? [.. volumes.Mounts] : [];
        }

        RequireBlocks(mounts, purpose);
    }

    /// <summary>
    /// Makes a clone of a volume as it is now. The caller has its turn, unless it is a template. One that is in use is cut while its guest goes on.
    /// </summary>
    public async Task<StoredVolume> CloneAsync(StoredVolume source, ResourceIdentity identity, Guid? owner, ResourceMetadata metadata)
    {
        RequireUsable(source);
        if (source.Writer is null)
        {
            SettleSize(source);
        }

        VolumeRecord record = source.Record;
        string backing = record.IsTemplate ? record.Top! : await CutAsync(source).ConfigureAwait(false);
        string top = await MakeImageAsync(backing, FormatOf(backing), record.Size).ConfigureAwait(false);
        return Add(
            identity,
            new VolumeRecord
            {
                Uuid = identity.Uuid,
                Name = string.Equals(identity.Name, identity.Uuid.ToString("D"), StringComparison.Ordinal) ? null : identity.Name,
                CreatedAt = identity.CreatedAt,
                Top = top,
                Size = record.Size,
                Filesystem = record.Filesystem,
                Owner = owner,
                Bases = record.Bases,
                Images = record.Images,
                Tags = metadata.Tags,
                DeleteLock = metadata.DeleteLock,
            },
            metadata);
    }

    /// <summary>Attaches a volume, or notes that it is to be attached.</summary>
    public void Attach(StoredVolume volume, Guid instance, AttachVolumeRequest request, bool isPending)
    {
        InstanceVolumes? volumes;
        lock (_lock)
        {
            if (!_instances.TryGetValue(instance, out volumes))
            {
                throw new ResourceNotFoundException("instance", instance);
            }

            RequireAttachable(volume, request.ReadOnly);
            MountLocked(new VolumeMount(volume, volumes, volumes.SlotFor(request.At), request.At, request.ReadOnly)
            {
                Pending = isPending ? VolumeUpdate.Attach : null,
            });
        }

        volumes.Changed?.Invoke();
    }

    /// <summary>Detaches a volume from instances, or notes that it is to be detached.</summary>
    public async Task DetachAsync(StoredVolume volume, Guid? from)
    {
        List<InstanceVolumes> owners = [];
        lock (_lock)
        {
            VolumeMount[] mounts = [.. volume.Mounts.Where(mount => from is null || mount.Owner.Identity.Uuid == from)];
            if (mounts.Length == 0)
            {
                throw new InvalidRequestException($"The {volume.Title} is not attached{(from is null ? "" : " to that instance")}");
            }

            foreach (VolumeMount mount in mounts)
            {
                owners.Add(mount.Owner);
                if (mount.Pending == VolumeUpdate.Attach)
                {
                    Unmount(mount);
                }
                else
                {
                    mount.Pending = VolumeUpdate.Detach;
                }
            }
        }

        foreach (InstanceVolumes owner in owners)
        {
            owner.Changed?.Invoke();
            bool isUnused;
            bool isFree = IsFree(owner);
            lock (_lock)
            {
                isUnused = owner.InUse is null;
            }

            if (isUnused && isFree)
            {
                await ApplyPendingAsync(owner, detach: true).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Waits until instances that have stopped have given a volume back, which takes a moment.</summary>
    public Task SettleAsync(StoredVolume volume, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            return Task.WhenAll(volume.Mounts.Select(mount => SettleAsync(mount.Owner.Identity.Uuid, cancellationToken)));
        }
    }

    /// <summary>Waits until an instance that has stopped has given its volumes back.</summary>
    public async Task SettleAsync(Guid instance, CancellationToken cancellationToken)
    {
        // Not under the lock of the caller, which the state of the instance must not be asked for under.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        InstanceVolumes? volumes;
        Task? givenBack;
        lock (_lock)
        {
            givenBack = _instances.TryGetValue(instance, out volumes) ? volumes.InUse?.Task : null;
        }

        if (givenBack is not null && volumes?.Status?.Invoke().State == InstanceState.Stopped)
        {
            await givenBack.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The machine of an instance has ended, which may have had no volumes: what waits for that is done in the background.</summary>
    public void OnEnded(Guid instance)
    {
        bool waits;
        lock (_lock)
        {
            waits = !_isFrozen && _instances.TryGetValue(instance, out InstanceVolumes? volumes) && volumes.Mounts.Exists(static mount => mount.Pending is not null);
        }

        if (waits)
        {
            Begin(() => OnStoppedAsync(instance));
        }
    }

    /// <summary>An instance has stopped without a machine that would say so: what waits for that is done.</summary>
    public async Task OnStoppedAsync(Guid instance)
    {
        await SettleAsync(instance, CancellationToken.None).ConfigureAwait(false);
        InstanceVolumes? volumes;
        lock (_lock)
        {
            volumes = _instances.TryGetValue(instance, out InstanceVolumes? found) && found.InUse is null ? found : null;
        }

        if (volumes is not null && IsFree(volumes))
        {
            await ApplyPendingAsync(volumes, detach: true).ConfigureAwait(false);
        }
    }

    /// <summary>Whether an instance is stopped and has nothing to continue from.</summary>
    public bool IsFree(Guid instance)
    {
        InstanceVolumes? volumes;
        bool isUnused;
        lock (_lock)
        {
            isUnused = _instances.TryGetValue(instance, out volumes) && volumes.InUse is null;
        }

        return isUnused && IsFree(volumes!);
    }

    /// <summary>A disk of an instance has failed.</summary>
    public void OnDiskFailed(InstanceVolumes volumes, int slot, Exception error)
    {
        StoredVolume? volume;
        bool isNew;
        lock (_lock)
        {
            volume = volumes.Mounts.Find(mount => mount.Slot == slot)?.Volume;

            // A guest may try again and again.
            isNew = volume is not null && (volume.LastError as BlockDeviceException)?.Error != (error as BlockDeviceException)?.Error;
            if (volume is not null)
            {
                volume.LastError = error;
            }
        }

        if (isNew)
        {
            _platform.Logger.VolumeFailed(error, volume!.Identity.Name, volume.Identity.Uuid, volumes.Identity.Name);
        }
    }

    /// <summary>
    /// Writes down which volumes a template takes over from its instance when it is one: between what is written down of the two, the host may end.
    /// </summary>
    /// <exception cref="StorageException">The host cannot write. Nothing has changed.</exception>
    public void PlanAdoption(IMachineSnapshot? snapshot, Guid instance)
    {
        SnapshotVolume[] adopted = AdoptedBy(snapshot, instance);
        if (adopted.Length > 0)
        {
            Commit(() => new VolumeChange { Set = [.. adopted.Select(part => part.Template.Record with { Adopts = part.Source!.Identity.Uuid, Adopter = instance })] });
        }
    }

    /// <summary>The volumes of an instance that has become a template are its volume templates from now on, in place of those of its snapshot.</summary>
    /// <param name="snapshot">The snapshot.</param>
    /// <param name="instance">The instance.</param>
    /// <param name="isWritten">Whether it is on the disk that there is a template; if not, the volumes are those of the instance there.</param>
    public void Adopt(IMachineSnapshot? snapshot, Guid instance, bool isWritten)
    {
        // One that others read as well stays what it is.
        SnapshotVolume[] adopted = AdoptedBy(snapshot, instance);
        if (snapshot is not VolumeSnapshot withVolumes || !TryAdopt(
            [.. adopted.Select(static part => (part.Template, part.Source!))],
            [.. withVolumes.Volumes.Except(adopted).Select(static part => part.Template).Where(static template => template.Record.Adopter is not null)],
            isWritten))
        {
            return;
        }

        withVolumes.Replace([.. withVolumes.Volumes.Select(part => adopted.Contains(part) ? part with { Template = part.Source! } : part)]);
        BeginDelete([.. adopted.Select(static part => part.Template)]);
    }

    private SnapshotVolume[] AdoptedBy(IMachineSnapshot? snapshot, Guid instance) =>
        snapshot is VolumeSnapshot withVolumes ? [.. withVolumes.Volumes.Where(part => part.Source is { } source && IsOnlyIn(source, instance))] : [];

    /// <param name="adopted">Templates, and the volumes that take their places.</param>
    /// <param name="others">Templates that stay what they are, although something else was planned.</param>
    /// <param name="mayWrite">Whether it may be written down yet.</param>
    private bool TryAdopt((StoredVolume Template, StoredVolume Volume)[] adopted, StoredVolume[] others, bool mayWrite)
    {
        if (adopted.Length + others.Length == 0)
        {
            return false;
        }

        Exception? failure = null;
        if (mayWrite)
        {
            try
            {
                Commit(() => new VolumeChange
                {
                    Set =
                    [
                        .. adopted.Select(static pair => pair.Volume.Record with
                        {
                            Top = pair.Template.Record.Top,
                            IsTemplate = true,
                            Owner = pair.Template.Record.Owner,
                            IsKept = pair.Template.Record.IsKept,
                            HasNoMemory = pair.Template.Record.HasNoMemory,
                            Images = pair.Template.Record.Images,
                            Slot = pair.Template.Record.Slot,
                            At = pair.Template.Record.At,
                            ReadOnly = pair.Template.Record.ReadOnly,
                        }),

                        // By the same line: of two in one place nobody would know which it is.
                        .. adopted.Select(static pair => pair.Template.Record with { IsKept = false, Adopts = null, Adopter = null }),
                        .. others.Select(static template => template.Record with { Adopts = null, Adopter = null }),
                    ],
                });
            }
            catch (StorageException error)
            {
                failure = error;
                _platform.Logger.VolumeWorkFailed(error);
            }
        }

        lock (_lock)
        {
            foreach ((_, StoredVolume volume) in adopted)
            {
                // The next start makes it a template: nobody may have written to it until then.
                volume.Failure = mayWrite && failure is null
                    ? null
                    : new StorageException(
                        Images.PathOf(volume.Record.Top!),
                        $"The {volume.Title} belongs to a template, which could not be written down. {failure?.Message} It is a part of the template when the platform has been started again.");
            }
        }

        return mayWrite && failure is null;
    }

    /// <summary>The volumes and ROMs of a snapshot belong to an id from now on, under which the snapshot is kept.</summary>
    /// <returns>What takes that back, for <see cref="Unkeep"/>.</returns>
    public async Task<VolumeChange> KeepAsync(Guid id, VolumeSnapshot snapshot, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        VolumeRecord[] before = [.. snapshot.Volumes.Select(static part => part.Template.Record)];
        if (Array.Exists(before, static record => record.IsKept))
        {
            throw new InvalidOperationException("The volumes of the snapshot are kept already.");
        }

        VolumeRecord[] roms = [.. snapshot.Roms.Select(rom => RecordOf(rom, id, hasNoMemory: snapshot.Machine is null))];
        await Task.Run(
            () =>
            {
                Dictionary<Guid, IReadOnlyList<ImageChecksum>> images = before.ToDictionary(static record => record.Uuid, record => DescribeImages(record, cancellationToken));
                Commit(() => new VolumeChange
                {
                    Set =
                    [
                        .. snapshot.Volumes.Select(part => part.Template.Record with
                        {
                            Owner = id,
                            IsKept = true,
                            HasNoMemory = snapshot.Machine is null,
                            Images = images[part.Template.Identity.Uuid],
                            Slot = part.Slot,
                            At = part.At,
                            ReadOnly = part.IsReadOnly,
                        }),
                        .. roms,

                        // What the volumes themselves are based on from now on is known by this, too.
                        .. snapshot.Volumes.Where(IsBeneathItsSource).Select(part => part.Source!.Record with { Images = images[part.Template.Identity.Uuid] }),
                    ],
                });
                Array.ForEach(roms, Add);
            },
            cancellationToken).ConfigureAwait(false);
        return new VolumeChange { Set = before, Removed = [.. roms.Select(static rom => rom.Uuid)] };
    }

    private bool IsBeneathItsSource(SnapshotVolume part)
    {
        lock (_lock)
        {
            return part.Source is { Record: { IsTemplate: false, Top: { } top } record }
                && _volumes.ContainsKey(record.Uuid)
                && Images.ChainOf(top).Skip(1).Contains(part.Template.Record.Top, StringComparer.Ordinal);
        }
    }

    /// <summary>A snapshot could not be kept: its volumes go with it again.</summary>
    public void Unkeep(VolumeChange undo)
    {
        try
        {
            Commit(undo);
            Forget(undo.Removed);
        }
        catch (StorageException error)
        {
            // The next start finds that nobody owns them.
            _platform.Logger.VolumeWorkFailed(error);
        }
    }

    /// <summary>The snapshots that are kept and are of volumes only.</summary>
    public IReadOnlyList<Guid> ListWithoutMemory()
    {
        lock (_lock)
        {
            return [.. _volumes.Values.Where(static volume => volume.Record is { IsKept: true, HasNoMemory: true }).Select(static volume => volume.Record.Owner!.Value).Distinct()];
        }
    }

    /// <summary>Puts a snapshot that was opened together with the volumes that are kept under its id.</summary>
    /// <param name="id">The id.</param>
    /// <param name="machine">What was opened; <see langword="null"/> when there are only volumes.</param>
    public IMachineSnapshot OpenKept(Guid id, IMachineSnapshot? machine)
    {
        IReadOnlyList<StoredVolume> kept = [.. OwnedBy(id).Where(static volume => volume.Record is { IsKept: true, Rom: null })];
        IReadOnlyList<RomMount> roms = RomsKeptWith(id);
        return machine is not null && kept.Count + roms.Count == 0
            ? machine
            : new VolumeSnapshot(
                this,
                machine,
                [
                    .. kept.OrderBy(static volume => volume.Record.Slot)
                        .Select(static volume => new SnapshotVolume(volume, volume.Record.Slot, volume.Record.At, volume.Record.ReadOnly, Source: null)),
                ],
                roms);
    }

    private static void RequireBlocks(IEnumerable<VolumeMount> mounts, ClonePurpose purpose)
    {
        if (mounts.Any(static mount => !mount.Volume.IsBlock))
        {
            throw new PlatformException(
                PlatformErrorCode.UnsupportedVolume,
                purpose == ClonePurpose.Checkpoint ? VolumeRules.CheckpointNeedsBlocks : VolumeRules.BranchNeedsBlocks);
        }
    }

    private static bool IsFree(InstanceVolumes volumes) =>
        volumes.Status is null || volumes.Status() is { State: InstanceState.Stopped, HasSnapshot: false };

    // Under the lock.
    private static void RequireAttachable(StoredVolume volume, bool isReadOnly)
    {
        if (volume.Record.IsTemplate)
        {
            throw new InvalidRequestException($"The {volume.Title} is a template: create a volume from it");
        }

        if (!volume.IsListed)
        {
            throw NotFound(volume.Identity.Uuid);
        }

        if (volume.Mounts.Find(mount => !mount.IsReadOnly || !isReadOnly) is { } other)
        {
            throw new VolumeBusyException(
                volume.Identity.Uuid,
                $"The {volume.Title} is attached to instance '{other.Owner.Identity.Name}': detach it there, or attach it read-only on both sides");
        }
    }

    private static void Unmount(VolumeMount mount)
    {
        mount.Volume.Mounts.Remove(mount);
        mount.Owner.Mounts.Remove(mount);
    }

    private static void MountLocked(VolumeMount mount)
    {
        mount.Volume.Mounts.Add(mount);
        mount.Owner.Mounts.Add(mount);
    }

    private void Mount(VolumeMount mount)
    {
        lock (_lock)
        {
            MountLocked(mount);
        }
    }

    private bool IsOnlyIn(StoredVolume volume, Guid instance)
    {
        lock (_lock)
        {
            // Not one that the instance does not have, or not yet: its snapshot may be of another instance, whose volume is nobody's business.
            return volume.Mounts.Count > 0
                && volume.Mounts.TrueForAll(mount => mount.Owner.Identity.Uuid == instance && mount.Pending != VolumeUpdate.Attach);
        }
    }

    private async Task ApplyPendingAsync(InstanceVolumes volumes, bool detach)
    {
        List<StoredVolume> owned = [];
        bool isChanged;
        lock (_lock)
        {
            isChanged = volumes.Mounts.Exists(static mount => mount.Pending is not null);
            foreach (VolumeMount mount in volumes.Mounts.ToArray())
            {
                if (mount.Pending == VolumeUpdate.Attach)
                {
                    mount.Pending = null;
                }
                else if (mount.Pending == VolumeUpdate.Detach && detach)
                {
                    Unmount(mount);
                    if (mount.Volume.Record.Owner == volumes.Identity.Uuid)
                    {
                        owned.Add(mount.Volume);
                    }
                }
            }
        }

        if (isChanged)
        {
            volumes.Changed?.Invoke();
        }

        await DeleteOwnedAsync(owned).ConfigureAwait(false);
    }

    // Not before it is written down that the instance does not have them any more.
    private async Task DeleteOwnedAsync(List<StoredVolume> owned)
    {
        if (owned.Count == 0)
        {
            return;
        }

        await _platform.TryCommitAsync().ConfigureAwait(false);
        try
        {
            await DeleteAsync(owned).ConfigureAwait(false);
        }
        catch (StorageException error)
        {
            // Nobody has them any more. They go when something else can be written down, or at the next start.
            _platform.Logger.VolumeWorkFailed(error);
        }
    }

    /// <exception cref="PlatformException">The volume is damaged, or its images are.</exception>
    public void RequireUsable(StoredVolume volume)
    {
        switch (volume.Failure)
        {
            case DataDamageException damage:
                throw new DataDamageException(damage.Path, damage.Dependents, damage.Message, damage);
            case { } failure when DamagedFileOf(failure) is { } path:
                throw new DataDamageException(path, DependentsOf(volume), $"The {volume.Title} cannot be used: {failure.Message}", failure);
            case { } failure:
                throw new StorageException(Images.PathOf(volume.Record.Top!), $"The {volume.Title} cannot be used: {failure.Message}");
        }
    }

    private async Task<MachineDisk> OpenAsync(VolumeMount mount, bool boots, CancellationToken cancellationToken)
    {
        StoredVolume volume = mount.Volume;
        RequireUsable(volume);
        if (!volume.IsBlock)
        {
            throw new PlatformException(
                PlatformErrorCode.UnsupportedVolume,
                $"The {volume.Title} is a directory of the host, for which the backend '{_platform.Hypervisor.Info.Name}' has no device: detach it");
        }

        using Turns turn = await Turns.TakeAsync([volume], cancellationToken).ConfigureAwait(false);
        if (!boots && !mount.IsReadOnly && _platform.Data is not null)
        {
            // Before the guest writes: memory and volume would not go together if the host ended and the memory was used again.
            await Task.Run(() => Update(volume, static record => record with { Resumptions = record.Resumptions + 1 }), cancellationToken).ConfigureAwait(false);
        }

        await Task.Run(
            () =>
            {
                if (Images.IsIncomplete(volume.Record.Top!))
                {
                    Images.Repair(volume.Record.Top!, volume.Record.Bases);
                }

                SettleSize(volume);
                RequireSound(volume, cancellationToken);
            },
            cancellationToken).ConfigureAwait(false);
        VolumeDisk disk = await OpenDiskAsync(volume.Record, mount.IsReadOnly, cancellationToken).ConfigureAwait(false);
        lock (_lock)
        {
            mount.Disk = disk;
            volume.LastError = null;
            volume.Readers += mount.IsReadOnly ? 1 : 0;
            volume.Writer = mount.IsReadOnly ? volume.Writer : disk;
        }

        return new MachineDisk
        {
            Slot = mount.Slot,
            Device = disk,
            Id = volume.Identity.Uuid.ToString("N")[..MachineDisk.MaxIdLength],
            At = mount.At,
        };
    }

    private async Task CloseAsync(VolumeMount mount)
    {
        StoredVolume volume = mount.Volume;
        using Turns turn = await Turns.TakeAsync([volume], CancellationToken.None).ConfigureAwait(false);
        Exception? failure = null;
        try
        {
            try
            {
                await mount.Disk!.WhenPublishedAsync().ConfigureAwait(false);
            }
            finally
            {
                await mount.Disk!.DisposeAsync().ConfigureAwait(false);
            }
        }
        catch (PlatformException error)
        {
            // What was flushed is there; the image is completed when it is opened again.
            failure = error;
            _platform.Logger.VolumeFailed(error, volume.Identity.Name, volume.Identity.Uuid, mount.Owner.Identity.Name);
        }

        lock (_lock)
        {
            mount.Disk = null;
            volume.LastError = failure ?? volume.LastError;
            volume.Readers -= mount.IsReadOnly ? 1 : 0;
            volume.Writer = mount.IsReadOnly ? volume.Writer : null;
        }

        if (volume.UnsettledFold is not null)
        {
            // Its files are opened anew, after which a flush that failed does not count any more.
            BeginFold();
        }
    }

    // The tops that cuts have put on volumes are written down, after which flushes of the guest complete again.
    private void PublishCuts(VolumeMount[] mounts, string[] names, DiskCutOfVolumes cut)
    {
        int[] made = [.. Enumerable.Range(0, mounts.Length).Where(index => cut.Cuts[index] is not null)];
        if (made.Length == 0)
        {
            return;
        }

        foreach (int index in made)
        {
            Images.Add(names[index], mounts[index].Volume.Record.Top);
        }

        Lock writing = new();
        bool isWritten = false;
        try
        {
            Write();
        }
        catch (StorageException)
        {
            foreach (int index in made)
            {
                cut.Cuts[index]!.Defer(WriteAgain);
            }

            throw;
        }
        finally
        {
            foreach (int index in made)
            {
                BeginComplete(cut.Cuts[index]!);
            }
        }

        BeginFold();

        void Write()
        {
            lock (writing)
            {
                // By the flush of another one of these volumes.
                if (isWritten)
                {
                    return;
                }

                Commit(() => new VolumeChange { Set = [.. made.Select(index => mounts[index].Volume.Record with { Top = names[index] })] });
                isWritten = true;
                foreach (int index in made)
                {
                    cut.Cuts[index]!.Publish();
                }
            }
        }

        void WriteAgain()
        {
            try
            {
                Write();
            }
            catch (StorageException error)
            {
                StoredVolume volume = mounts[made[0]].Volume;
                throw new BlockDeviceException(
                    error.IsFull ? BlockDeviceError.NoSpace : BlockDeviceError.InputOutput,
                    Images.PathOf(names[made[0]]),
                    $"What the {volume.Title} is made of cannot be written down, and nothing of it is flushed until it is: {error.Message}",
                    error);
            }
        }
    }

    // Nobody waits for a frozen image to be complete as a file.
    private void BeginComplete(VolumeCut cut) => Begin(async () =>
    {
        try
        {
            await cut.SealAsync().ConfigureAwait(false);
        }
        finally
        {
            await cut.DisposeAsync().ConfigureAwait(false);
        }
    });

    private async Task<List<SnapshotVolume>> MakeTemplatesAsync(IReadOnlyList<VolumeMount> mounts, VolumeMount[] written, DiskCutOfVolumes cut)
    {
        Guid owner = Guid.CreateVersion7(_platform.TimeProvider.GetUtcNow());
        List<SnapshotVolume> parts = [];
        try
        {
            foreach (VolumeMount mount in mounts)
            {
                int index = Array.IndexOf(written, mount);
                StoredVolume template = index < 0
                    ? await FreezeAsync(mount.Volume).ConfigureAwait(false)
                    : AddTemplate(mount.Volume.Record, Path.GetFileName(cut.Cuts[index]!.Path), owner, mount.Slot, mount.At, mount.IsReadOnly);
                parts.Add(new SnapshotVolume(template, mount.Slot, mount.At, mount.IsReadOnly, mount.Volume));
            }

            return parts;
        }
        catch
        {
            BeginDelete([.. parts.Select(static part => part.Template)]);
            throw;
        }
    }

    /// <summary>Makes a volume template of a volume that nobody writes to. The caller has its turn.</summary>
    private async Task<StoredVolume> FreezeAsync(StoredVolume volume)
    {
        string frozen = await CutAsync(volume).ConfigureAwait(false);
        return AddTemplate(volume.Record, frozen, Guid.CreateVersion7(_platform.TimeProvider.GetUtcNow()), slot: 0, at: "", isReadOnly: false);
    }

    private StoredVolume AddTemplate(VolumeRecord source, string top, Guid owner, int slot, string at, bool isReadOnly)
    {
        ResourceIdentity identity = ReserveUnnamed();

        // One that cannot be written down lets go of its image, which others have on theirs.
        Images.Hold(top);
        StoredVolume template = Add(
            identity,
            source with
            {
                Uuid = identity.Uuid,
                Name = null,
                CreatedAt = identity.CreatedAt,
                Top = top,
                IsTemplate = true,
                Owner = owner,
                Slot = slot,
                At = at,
                ReadOnly = isReadOnly,
                Tags = [],
                DeleteLock = false,
            },
            ResourceMetadata.None);
        ReleaseImage(top);
        return template;
    }

    /// <summary>Puts a new image on a volume, so that the one below does not change any more. The caller has its turn.</summary>
    /// <returns>The name of the one below.</returns>
    private async Task<string> CutAsync(StoredVolume volume)
    {
        await TrySettleFoldAsync(volume, CancellationToken.None).ConfigureAwait(false);
        VolumeRecord record = volume.Record;
        if (volume.Writer is not { } disk)
        {
            // It does not change any more, and so it is not completed by its next opening.
            await Task.Run(() => Images.Repair(record.Top!, record.Bases)).ConfigureAwait(false);
            string overlay = await MakeImageAsync(record.Top, FormatOf(record.Top!), record.Size).ConfigureAwait(false);
            try
            {
                Commit(new VolumeChange { Set = [record with { Top = overlay }] });
            }
            catch
            {
                ReleaseImage(overlay);
                throw;
            }

            return record.Top!;
        }

        await disk.WhenPublishedAsync().ConfigureAwait(false);
        record = volume.Record;
        string name = ImageDirectory.NewName();
        PreparedOverlay prepared = await disk.PrepareOverlayAsync(Images.PathOf(name)).ConfigureAwait(false);
        await using (prepared.ConfigureAwait(false))
        {
            DiskCutOfVolumes cut = new([disk], [prepared]);
            await cut.HoldAsync(CancellationToken.None).ConfigureAwait(false);
            try
            {
                cut.Cut();
            }
            finally
            {
                cut.Release();
            }

            PublishCuts([volume.Mounts.First(mount => mount.Disk == disk)], [name], cut);
        }

        return record.Top!;
    }

    /// <summary>The turns of several volumes, taken in one order by everybody.</summary>
    private sealed class Turns : IDisposable
    {
        private readonly List<StoredVolume> _taken = [];

        public static async Task<Turns> TakeAsync(IEnumerable<StoredVolume> volumes, CancellationToken cancellationToken)
        {
            Turns turns = new();
            try
            {
                foreach (StoredVolume volume in volumes.Distinct().OrderBy(static volume => volume.Identity.Uuid))
                {
                    await volume.Turn.WaitAsync(cancellationToken).ConfigureAwait(false);
                    turns._taken.Add(volume);
                }

                return turns;
            }
            catch
            {
                turns.Dispose();
                throw;
            }
        }

        public void Dispose() => _taken.ForEach(static volume => volume.Turn.Release());
    }
}

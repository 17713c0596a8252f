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
                    StoredVolume clone = await CloneAsync(volume.Template, ReserveUnnamed(), identity.Uuid, ResourceMetadata.None, cancellationToken).ConfigureAwait(false);
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

            List<SnapshotVolume> parts = await MakeTemplatesAsync(open.Mounts, written, cut, cancellationToken).ConfigureAwait(false);
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
                StoredVolume template = await FreezeAsync(mount.Volume, cancellationToken).ConfigureAwait(false);
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
    /// <param name="source">The volume.</param>
    /// <param name="identity">What the clone is known by.</param>
    /// <param name="owner">What owns the clone; <see langword="null"/> when nothing does.</param>
    /// <param name="metadata">Its tags and its delete lock.</param>
    /// <param name="cancellationToken">Cancels it; there is no clone then, and the volume holds what it did.</param>
    public async Task<StoredVolume> CloneAsync(
        StoredVolume source,
        ResourceIdentity identity,
        Guid? owner,
        ResourceMetadata metadata,
        CancellationToken cancellationToken)
    {
        RequireUsable(source);
        if (source.Writer is null)
        {
            SettleSize(source);
        }

        VolumeRecord record = source.Record;
        string backing = record.IsTemplate ? record.Top! : await CutAsync(source, cancellationToken).ConfigureAwait(false);
        string top = await MakeImageAsync(backing, FormatOf(backing), record.Size, cancellationToken).ConfigureAwait(false);
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

    /// <summary>Whether an instance has a volume open, or continues with it from memory that knows it as it was.</summary>
    public bool IsInUse(StoredVolume volume)
    {
        Guid[] owners;
        lock (_lock)
        {
            if (volume.IsOpen)
            {
                return true;
            }

            owners = [.. volume.Mounts.Where(static mount => mount.Pending != VolumeUpdate.Attach).Select(static mount => mount.Owner.Identity.Uuid)];
        }

        // Not under the lock, which instances must not be asked under.
        return !Array.TrueForAll(owners, IsFree);
    }

    /// <summary>An instance that has a volume, or is to have it; <see langword="null"/> when none does.</summary>
    public ResourceIdentity? UserOf(StoredVolume volume)
    {
        lock (_lock)
        {
            return volume.Mounts.FirstOrDefault()?.Owner.Identity;
        }
    }

    /// <summary>Keeps instances from getting a volume until <see cref="EndConversion"/>.</summary>
    /// <returns>The instance that has it, or is to have it, in which case nothing has begun; else <see langword="null"/>.</returns>
    public ResourceIdentity? BeginConversion(StoredVolume volume)
    {
        lock (_lock)
        {
            ResourceIdentity? user = UserOf(volume);
            volume.IsConverting = user is null;
            return user;
        }
    }

    /// <summary>A volume has become a template, or has not.</summary>
    public void EndConversion(StoredVolume volume)
    {
        lock (_lock)
        {
            volume.IsConverting = false;
        }
    }

    /// <summary>Says whether an operation on a volume is under way.</summary>
    public void SetBusy(StoredVolume volume, bool isBusy)
    {
        lock (_lock)
        {
            volume.IsBusy = isBusy;
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

        if (volume.IsConverting)
        {
            throw new VolumeBusyException(volume.Identity.Uuid, $"The {volume.Title} is being turned into a template: clone it first, or create a volume from the template");
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

    private async Task<List<SnapshotVolume>> MakeTemplatesAsync(IReadOnlyList<VolumeMount> mounts, VolumeMount[] written, DiskCutOfVolumes cut, CancellationToken cancellationToken)
    {
        Guid owner = Guid.CreateVersion7(_platform.TimeProvider.GetUtcNow());
        List<SnapshotVolume> parts = [];
        try
        {
            foreach (VolumeMount mount in mounts)
            {
                int index = Array.IndexOf(written, mount);
                StoredVolume template = index < 0
                    ? await FreezeAsync(mount.Volume, cancellationToken).ConfigureAwait(false)
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
    private async Task<StoredVolume> FreezeAsync(StoredVolume volume, CancellationToken cancellationToken)
    {
        string frozen = await CutAsync(volume, cancellationToken).ConfigureAwait(false);
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
    private async Task<string> CutAsync(StoredVolume volume, CancellationToken cancellationToken)
    {
        await TrySettleFoldAsync(volume, cancellationToken).ConfigureAwait(false);
        VolumeRecord record = volume.Record;
        if (volume.Writer is not { } disk)
        {
            // It does not change any more, and so it is not completed by its next opening.
            await Task.Run(() => Images.Repair(record.Top!, record.Bases), cancellationToken).ConfigureAwait(false);
            string overlay = await MakeImageAsync(record.Top, FormatOf(record.Top!), record.Size, cancellationToken).ConfigureAwait(false);
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
        PreparedOverlay prepared = await disk.PrepareOverlayAsync(Images.PathOf(name), cancellationToken).ConfigureAwait(false);
        await using (prepared.ConfigureAwait(false))
        {
            DiskCutOfVolumes cut = new([disk], [prepared]);
            await cut.HoldAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                cut.Cut();
            }
            finally
            {
                cut.Release();
            }

            VolumeMount mount;
            lock (_lock)
            {
                mount = volume.Mounts.First(other => other.Disk == disk);
            }

            PublishCuts([mount], [name], cut);
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

using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Volumes;

/// <content>The machines of instances: what they have is opened for them, and closed when they end.</content>
internal sealed partial class VolumeCatalog
{
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
}

using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Volumes;

/// <content>What instances have: from their making to their end.</content>
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

    private static bool IsFree(InstanceVolumes volumes) =>
        volumes.Status is null || volumes.Status() is { State: InstanceState.Stopped, HasSnapshot: false };

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
}

using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Volumes;

/// <content>Attaching and detaching, and what keeps volumes from it.</content>
internal sealed partial class VolumeCatalog
{
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
}

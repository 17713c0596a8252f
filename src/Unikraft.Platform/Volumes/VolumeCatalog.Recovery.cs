using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Volumes;

/// <content>What a data directory keeps of the volumes of instances, and what is made of it at the next start.</content>
internal sealed partial class VolumeCatalog
{
    /// <summary>What is to be written down of the volumes and ROMs of an instance. May be called under its lock.</summary>
    public (IReadOnlyList<VolumeMountRecord> Volumes, IReadOnlyList<RomMount> Roms, IReadOnlyList<RomMount>? NextRoms) Save(Guid instance)
    {
        lock (_lock)
        {
            return _instances.TryGetValue(instance, out InstanceVolumes? volumes)
                ? (
                    [
                        .. volumes.Mounts.Select(static mount => new VolumeMountRecord(
                            mount.Volume.Identity.Uuid,
                            mount.Slot,
                            mount.At,
                            mount.IsReadOnly,
                            mount.Pending,
                            mount.Volume.Record.Resumptions)),
                    ],
                    volumes.Roms,
                    volumes.NextRoms)
                : ([], [], null);
        }
    }

    /// <summary>Gives an instance that was kept what it had.</summary>
    /// <returns>
    /// Whether a guest may have written to one of its volumes since the snapshot was kept that the instance would continue from. Memory and volume do not go together then.
    /// </returns>
    public bool Recover(ResourceIdentity identity, InstanceRecord record)
    {
        bool isAhead = false;
        InstanceVolumes volumes = new(identity);
        if (record.Volumes.Count > 0)
        {
            _ = Images;
        }

        lock (_lock)
        {
            (volumes.Roms, volumes.NextRoms) = (record.Roms, record.NextRoms);
            foreach (VolumeMountRecord mount in record.Volumes)
            {
                StoredVolume volume = _volumes.Find(mount.Volume) ?? Missing(mount.Volume, identity);
                isAhead |= !mount.IsReadOnly && (record.Run is not null || volume.Record.Resumptions != mount.Resumptions);
                MountLocked(new VolumeMount(volume, volumes, mount.Slot, mount.At, mount.IsReadOnly) { Pending = mount.Pending });
            }

            _instances.Add(identity.Uuid, volumes);
        }

        return isAhead && record.Snapshot is not null;
    }

    /// <summary>Deletes volumes whose instance or snapshot is not there, which a crash has left behind.</summary>
    /// <param name="owners">The instances and snapshots that are.</param>
    public void Collect(IReadOnlySet<Guid> owners)
    {
        if (Volatile.Read(ref _files) is not null)
        {
            StoredVolume[] unowned;
            lock (_lock)
            {
                unowned = [.. _volumes.All.Where(volume => volume.Record.Owner is { } owner && !owners.Contains(owner))];
            }

            BeginDelete(unowned);
        }
    }

    /// <summary>The volume templates of a snapshot that is kept.</summary>
    public IReadOnlyList<AttachedVolume> DescribeKept(Guid snapshot) => (AttachedVolume[])
    [
        // An array: those of snapshots without volumes are one and the same, and records that hold them equal.
        .. OwnedBy(snapshot).Select(static volume => volume.Record).Where(static record => record is { IsKept: true, Rom: null }).OrderBy(static record => record.Slot)
            .Select(static record => new AttachedVolume(record.Uuid, record.Name, record.At, record.ReadOnly)),
    ];

    // It cannot be found by others; the instance says so when it is to have it.
    private StoredVolume Missing(Guid uuid, ResourceIdentity instance)
    {
        string path = Path.Combine(Images.Path, VolumeJournal.FileName);
        return new StoredVolume(
            new ResourceIdentity(uuid, uuid.ToString("D"), instance.CreatedAt, instance.Order),
            new VolumeRecord { Uuid = uuid, CreatedAt = instance.CreatedAt })
        {
            Failure = new DataDamageException(
                path,
                [instance.Uuid],
                $"The volume {uuid:D} of instance '{instance.Name}' is not in '{path}'. Put a sound copy of the folder there, or delete the instance."),
        };
    }
}

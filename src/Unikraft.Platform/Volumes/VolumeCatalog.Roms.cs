using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Volumes;

/// <content>The ROMs of instances.</content>
internal sealed partial class VolumeCatalog
{
    /// <summary>The ROMs of an instance, by their slots.</summary>
    public IReadOnlyList<InstanceRom> RomsOf(Guid instance)
    {
        lock (_lock)
        {
            return _instances.TryGetValue(instance, out InstanceVolumes? volumes) ? volumes.DescribedRoms : [];
        }
    }

    /// <summary>Notes changes of the ROMs of an instance until <see cref="ApplyRoms"/>, behind those that wait already. May be called under its lock.</summary>
    /// <returns>Takes them back.</returns>
    /// <exception cref="InvalidRequestException">One of the changes is not allowed.</exception>
    public Action ChangeRoms(Guid instance, IEnumerable<PatchOperation> operations)
    {
        lock (_lock)
        {
            if (!_instances.TryGetValue(instance, out InstanceVolumes? volumes))
            {
                return static () => { };
            }

            IReadOnlyList<RomMount>? before = volumes.NextRoms;
            volumes.NextRoms = volumes.RomsAfter(operations);
            return () =>
            {
                lock (_lock)
                {
                    volumes.NextRoms = before;
                }
            };
        }
    }

    /// <summary>Gives an instance that has no machine, and boots, the ROMs that it was to have. May be called under its lock.</summary>
    public void ApplyRoms(Guid instance)
    {
        lock (_lock)
        {
            if (_instances.TryGetValue(instance, out InstanceVolumes? volumes) && volumes.NextRoms is { } next)
            {
                (volumes.Roms, volumes.NextRoms) = (next, null);
            }
        }
    }

    /// <summary>The ROMs of a snapshot that is kept, by their slots.</summary>
    public IReadOnlyList<RomMount> RomsKeptWith(Guid snapshot) =>
    [
        .. OwnedBy(snapshot).Select(static volume => volume.Record).Where(static record => record is { IsKept: true, Rom: not null })
            .OrderBy(static record => record.Slot)
            .Select(static record => new RomMount(record.Slot, record.Rom!, record.HostPath!, record.At)),
    ];

    /// <summary>Checks that the files of the ROMs of a snapshot that is kept are there, and as long as they were.</summary>
    /// <exception cref="SnapshotFileException">They are not.</exception>
    private static void VerifyRom(Guid snapshot, VolumeRecord rom)
    {
        FileInfo file = new(rom.HostPath!);
        if (!file.Exists || file.Length != rom.Size)
        {
            throw new SnapshotFileException(
                file.Exists ? SnapshotFileError.Damaged : SnapshotFileError.Missing,
                file.FullName,
                [snapshot],
                $"The ROM '{file.FullName}' {(file.Exists ? $"has {file.Length} bytes instead of {rom.Size}" : "is missing")}. It is needed by snapshot {snapshot}. "
                + "Put a sound copy of the file there, or delete what needs it.");
        }
    }

    private VolumeRecord RecordOf(RomMount rom, Guid snapshot, bool hasNoMemory)
    {
        ResourceIdentity identity = ReserveUnnamed();
        using ImageFile file = ImageFile.Open(rom.Path, isReadOnly: true);
        return new VolumeRecord
        {
            Uuid = identity.Uuid,
            CreatedAt = identity.CreatedAt,
            Size = file.Length,
            HostPath = rom.Path,
            Rom = rom.Name,
            IsTemplate = true,
            Owner = snapshot,
            IsKept = true,
            HasNoMemory = hasNoMemory,
            Slot = rom.Slot,
            At = rom.At,
            ReadOnly = true,
        };
    }

    // It is not listed: it is nobody's volume.
    private void Add(VolumeRecord rom) =>
        Make(new ResourceIdentity(rom.Uuid, rom.Uuid.ToString("D"), rom.CreatedAt, Order: 0), rom, ResourceMetadata.None);

    private void Forget(IReadOnlyList<Guid> roms)
    {
        lock (_lock)
        {
            foreach (Guid rom in roms)
            {
                _volumes.Remove(rom);
            }
        }
    }
}

using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Volumes;

/// <summary>The volumes and ROMs of one instance. Guarded by the lock of the catalog.</summary>
internal sealed class InstanceVolumes(ResourceIdentity identity)
{
    private AttachedVolume[] _described = [];

    public ResourceIdentity Identity { get; } = identity;

    /// <summary>The attachments, also those to come, by the order in which they were made.</summary>
    public List<VolumeMount> Mounts { get; } = [];

    /// <summary>The ROMs, by their slots.</summary>
    public IReadOnlyList<RomMount> Roms
    {
        get;
        set
        {
            field = value;
            DescribedRoms = RomMount.Describe(value);
        }
    } = [];

    /// <summary>The ROMs that wait for a boot of the image; <see langword="null"/> when they are those that are there.</summary>
    public IReadOnlyList<RomMount>? NextRoms { get; set; }

    /// <summary>The ROMs as they are told. The same list as long as they are the same.</summary>
    public IReadOnlyList<InstanceRom> DescribedRoms { get; private set; } = [];

    /// <summary>Tells the state of the instance, and whether it continues from a snapshot. Called without the lock.</summary>
    public Func<(InstanceState State, bool HasSnapshot)>? Status { get; set; }

    /// <summary>Has what the instance has written down. Called without the lock.</summary>
    public Action? Changed { get; set; }

    /// <summary>Completes when the machine that uses the volumes has given them back; <see langword="null"/> when none does.</summary>
    public TaskCompletionSource? InUse { get; set; }

    public bool IsEmpty => Mounts.Count == 0 && Roms.Count == 0;

    /// <summary>What the instance has. The same list as before when nothing has changed, so that what describes the instance is the same too.</summary>
    public IReadOnlyList<AttachedVolume> Describe()
    {
        AttachedVolume[] now =
        [
            .. Mounts.Where(static mount => mount.Pending != VolumeUpdate.Attach).Select(static mount => new AttachedVolume(
                mount.Volume.Identity.Uuid,
                mount.Volume.Record.Name,
                mount.At,
                mount.IsReadOnly)),
        ];
        return _described.SequenceEqual(now) ? _described : _described = now;
    }

    /// <summary>A slot for another volume.</summary>
    /// <exception cref="InvalidRequestException">There is none, or another volume or ROM is mounted there.</exception>
    public int SlotFor(string at)
    {
        RequirePlace(at, [.. Roms, .. NextRoms ?? []]);
        return Enumerable.Range(0, MachineDisk.VolumeSlots)
            .Except(Mounts.Select(static mount => mount.Slot))
            .DefaultIfEmpty(-1)
            .First() is var slot and >= 0
            ? slot
            : throw new InvalidRequestException($"Instance '{Identity.Name}' has {MachineDisk.VolumeSlots} volumes: that is all it can have");
    }

    /// <summary>Adds a ROM to those that the instance begins with.</summary>
    /// <exception cref="InvalidRequestException">There is no slot for it, another one has the name, or something else is mounted there.</exception>
    public void Add(InstanceRom rom) => Roms = With(Roms, rom, FreeSlot(Roms));

    /// <summary>The ROMs that the instance is to have after changes of them.</summary>
    /// <exception cref="InvalidRequestException">One of the changes is not allowed.</exception>
    public IReadOnlyList<RomMount> RomsAfter(IEnumerable<PatchOperation> operations) =>
        operations.Aggregate(NextRoms ?? Roms, (roms, operation) => operation switch
        {
            PatchOperation.SetRoms set => After([], set.Roms),
            PatchOperation.AddRoms add => After(roms, add.Roms),
            PatchOperation.DelRoms del => [.. roms.Where(rom => !del.Names.Contains(rom.Name, StringComparer.Ordinal))],
            _ => roms,
        });

    // Each in place of the one that had its name before.
    private IReadOnlyList<RomMount> After(IReadOnlyList<RomMount> before, IReadOnlyList<InstanceRom> added)
    {
        IReadOnlyList<RomMount> roms = [.. before.Where(rom => !added.Any(other => string.Equals(other.Name, rom.Name, StringComparison.Ordinal)))];
        foreach (InstanceRom rom in added)
        {
            // The slots of those that are replaced are not free.
            int slot = before.FirstOrDefault(other => string.Equals(other.Name, rom.Name, StringComparison.Ordinal))?.Slot ?? FreeSlot(roms.Concat(before));
            roms = With(roms, rom, slot);
        }

        return roms;
    }

    private static int FreeSlot(IEnumerable<RomMount> roms) => Enumerable.Range(MachineDisk.VolumeSlots, MachineDisk.Slots - MachineDisk.VolumeSlots)
        .Except(roms.Select(static other => other.Slot))
        .DefaultIfEmpty(-1)
        .First();

    private IReadOnlyList<RomMount> With(IReadOnlyList<RomMount> roms, InstanceRom rom, int slot)
    {
        if (rom.At is { } at)
        {
            RequirePlace(at, roms);
        }

        if (roms.Any(other => string.Equals(other.Name, rom.Name, StringComparison.Ordinal)))
        {
            throw new InvalidRequestException($"Instance '{Identity.Name}' has a ROM '{rom.Name}' already");
        }

        return slot < 0
            ? throw new InvalidRequestException(
                $"Instance '{Identity.Name}' has {MachineDisk.Slots - MachineDisk.VolumeSlots} ROMs: that is all it can have")
            : [.. roms.Append(new RomMount(slot, rom.Name, Path.GetFullPath(rom.Path), rom.At ?? "")).OrderBy(static other => other.Slot)];
    }

    private void RequirePlace(string at, IReadOnlyList<RomMount> roms)
    {
        if (Mounts.Exists(mount => string.Equals(mount.At, at, StringComparison.Ordinal))
            || roms.Any(rom => string.Equals(rom.At, at, StringComparison.Ordinal)))
        {
            throw new InvalidRequestException($"Instance '{Identity.Name}' has something else at '{at}' already");
        }
    }
}

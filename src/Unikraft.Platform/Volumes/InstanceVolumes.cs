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

    public List<RomMount> Roms { get; } = [];

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
        RequirePlace(at);
        return Enumerable.Range(0, MachineDisk.VolumeSlots)
            .Except(Mounts.Select(static mount => mount.Slot))
            .DefaultIfEmpty(-1)
            .First() is var slot and >= 0
            ? slot
            : throw new InvalidRequestException($"Instance '{Identity.Name}' has {MachineDisk.VolumeSlots} volumes: that is all it can have");
    }

    /// <summary>A slot for another ROM.</summary>
    /// <exception cref="InvalidRequestException">There is none, another one has the name, or something else is mounted there.</exception>
    public int SlotFor(InstanceRom rom)
    {
        if (rom.At is { } at)
        {
            RequirePlace(at);
        }

        if (Roms.Exists(other => string.Equals(other.Name, rom.Name, StringComparison.Ordinal)))
        {
            throw new InvalidRequestException($"Instance '{Identity.Name}' has a ROM '{rom.Name}' already");
        }

        return Enumerable.Range(MachineDisk.VolumeSlots, MachineDisk.Slots - MachineDisk.VolumeSlots)
            .Except(Roms.Select(static other => other.Slot))
            .DefaultIfEmpty(-1)
            .First() is var slot and >= 0
            ? slot
            : throw new InvalidRequestException(
                $"Instance '{Identity.Name}' has {MachineDisk.Slots - MachineDisk.VolumeSlots} ROMs: that is all it can have");
    }

    private void RequirePlace(string at)
    {
        if (Mounts.Exists(mount => string.Equals(mount.At, at, StringComparison.Ordinal))
            || Roms.Exists(rom => string.Equals(rom.At, at, StringComparison.Ordinal)))
        {
            throw new InvalidRequestException($"Instance '{Identity.Name}' has something else at '{at}' already");
        }
    }
}

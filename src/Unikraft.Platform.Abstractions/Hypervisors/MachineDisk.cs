using System.Text;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Hypervisors;

/// <summary>A disk of a machine.</summary>
public sealed record MachineDisk
{
    /// <summary>The number of slots of a machine: volumes have those from 0, ROMs those behind <see cref="VolumeSlots"/>.</summary>
    public const int Slots = 12;

    /// <summary>How many of the slots are for volumes.</summary>
    public const int VolumeSlots = 4;

    /// <summary>The longest <see cref="Id"/>, in ASCII characters.</summary>
    public const int MaxIdLength = 20;

    /// <summary>The longest <see cref="At"/>, in UTF-8 bytes.</summary>
    public const int MaxAtBytes = 240;

    /// <summary>Where the guest finds it, from 0. Stays the same in every clone.</summary>
    public required int Slot { get; init; }

    /// <summary>What is on it. Not owned by the machine: to be disposed of after that.</summary>
    public required IBlockDevice Device { get; init; }

    /// <summary>What the guest knows it by: up to 20 ASCII characters.</summary>
    public required string Id { get; init; }

    /// <summary>Where the guest should mount it: an absolute path of up to 240 bytes, which the guest is told. Default: empty.</summary>
    public string At { get; init; } = "";

    /// <summary>Checks the disks of a machine.</summary>
    /// <param name="disks">The disks.</param>
    /// <exception cref="InvalidRequestException">Two are in one slot, or one has a slot, an id or a path that it cannot have.</exception>
    public static void Require(IReadOnlyList<MachineDisk> disks)
    {
        ArgumentNullException.ThrowIfNull(disks);
        for (int i = 0; i < disks.Count; i++)
        {
            MachineDisk disk = disks[i];
            if (disk.Slot is < 0 or >= Slots || disks.Take(i).Any(other => other.Slot == disk.Slot))
            {
                throw new InvalidRequestException($"A disk is in slot {disk.Slot}: each needs one of its own, from 0 to {Slots - 1}.");
            }

            if (disk.Id.Length > MaxIdLength || !Ascii.IsValid(disk.Id))
            {
                throw new InvalidRequestException($"A disk has the id '{disk.Id}': allowed are up to {MaxIdLength} ASCII characters.");
            }

            if (Encoding.UTF8.GetByteCount(disk.At) > MaxAtBytes || disk.At.Contains('\0', StringComparison.Ordinal))
            {
                throw new InvalidRequestException($"A disk is to be mounted at '{disk.At}': allowed are up to {MaxAtBytes} bytes without NUL.");
            }
        }
    }
}

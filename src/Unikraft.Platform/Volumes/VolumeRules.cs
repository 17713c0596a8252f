using System.Text;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>What requests about volumes may say.</summary>
internal static class VolumeRules
{
    private const int MaxSizeMb = 1_048_576;

    /// <summary>The public API's limitation of branching, to the letter.</summary>
    internal const string BranchNeedsBlocks =
        "Branching only works with block-based volumes (for example, `ext4`). The branch clones the source's volume state consistently with its memory snapshot, "
        + "which isn't supported for other volume types.";

    /// <summary>The public API's limitation of checkpointing, to the letter.</summary>
    internal const string CheckpointNeedsBlocks =
        "Checkpointing builds on branching, so it only works with block-based volumes (for example, `ext4`). The checkpoint clones the source's volume state "
        + "consistently with its memory snapshot, which isn't supported for other volume types.";

    /// <summary>Checks a path to mount something at.</summary>
    internal static void RequireAt(string? at)
    {
        if (at is null || at.Length < 2 || at[0] != '/' || at.AsSpan().ContainsAny(':', '\0') || Encoding.UTF8.GetByteCount(at) > MachineDisk.MaxAtBytes
            || at[1..].Split('/').Any(static part => part is "" or "." or ".."))
        {
            throw new InvalidRequestException(
                $"Invalid mount point '{at}': an absolute path of up to {MachineDisk.MaxAtBytes} bytes is needed, without '.', '..' and empty parts and without ':'");
        }
    }

    internal static long RequireSize(int sizeMb) => sizeMb is >= 1 and <= MaxSizeMb
        ? (long)sizeMb << 20
        : throw new InvalidRequestException($"'size_mb' is {sizeMb}; allowed is 1 to {MaxSizeMb}");

    internal static void Require(CreateVolumeRequest request)
    {
        int sources = new object?[] { request.SizeMb, request.Template, request.CopyOf, request.BasedOn, request.HostPath }.Count(static source => source is not null);
        if (sources != 1)
        {
            throw new InvalidRequestException("Specify exactly one of 'size_mb', 'template', 'copy_of', 'based_on' and 'host_path'");
        }

        RequireFilesystem(request.Filesystem, request.SizeMb);
        RequireFile(request.CopyOf);
        RequireFile(request.BasedOn);
        if (request.SizeMb is { } size)
        {
            RequireSize(size);
        }

        if (request.HostPath is { } path && !Directory.Exists(path))
        {
            throw new InvalidRequestException($"'host_path' is '{path}', and there is no such directory");
        }
    }

    internal static void Require(IReadOnlyList<InstanceVolume>? volumes, IReadOnlyList<InstanceRom>? roms)
    {
        foreach (InstanceVolume volume in volumes ?? [])
        {
            RequireAt(volume.At);
            if (volume.Volume is null == volume.SizeMb is null)
            {
                throw new InvalidRequestException("Specify exactly one of 'volume' and 'size_mb' for each of 'volumes'");
            }

            RequireFilesystem(volume.Filesystem, volume.SizeMb);
            if (volume.SizeMb is { } size)
            {
                RequireSize(size);
            }
        }

        foreach (InstanceRom rom in roms ?? [])
        {
            if (string.IsNullOrEmpty(rom?.Path))
            {
                throw new InvalidRequestException("A ROM has no path");
            }

            if (rom.At is not null)
            {
                RequireAt(rom.At);
            }

            if (rom.Name is not { Length: > 0 and <= MachineDisk.MaxIdLength } || !Ascii.IsValid(rom.Name))
            {
                throw new InvalidRequestException($"A ROM is called '{rom.Name}'; allowed are 1 to {MachineDisk.MaxIdLength} ASCII characters");
            }
        }
    }

    private static void RequireFilesystem(VolumeFilesystem? filesystem, int? sizeMb)
    {
        if (filesystem is { } given && (sizeMb is null || given is not (VolumeFilesystem.Ext4 or VolumeFilesystem.None)))
        {
            throw new InvalidRequestException($"'filesystem' is '{given}'; allowed are 'Ext4' and 'None', and only together with 'size_mb'");
        }
    }

    private static void RequireFile(DiskImageFile? file)
    {
        if (file is not null && (string.IsNullOrEmpty(file.Path) || !Enum.IsDefined(file.Format)))
        {
            throw new InvalidRequestException("A disk image has no path or an unknown format");
        }
    }
}

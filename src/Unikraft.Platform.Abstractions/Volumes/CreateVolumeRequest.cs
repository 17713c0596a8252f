namespace Unikraft.Platform;

/// <summary>
/// Describes a volume to create. Exactly one of <see cref="SizeMb"/>, <see cref="Template"/>, <see cref="CopyOf"/>, <see cref="BasedOn"/> and
/// <see cref="HostPath"/> is set.
/// </summary>
public sealed record CreateVolumeRequest
{
    /// <summary>
    /// The name: 1 to 63 letters, digits and hyphens, beginning and ending with a letter or digit, and not in the form of a UUID. Default: <c>vol</c> with five random
    /// characters behind it.
    /// </summary>
    public string? Name { get; init; }

    /// <summary>The size in MiB of an empty volume: 1 to 1 048 576. It takes room on the host as it fills.</summary>
    public int? SizeMb { get; init; }

    /// <summary>The volume template to make the volume of.</summary>
    public NameOrUuid? Template { get; init; }

    /// <summary>A disk to copy. The file is not needed afterwards.</summary>
    public DiskImageFile? CopyOf { get; init; }

    /// <summary>
    /// A disk to build on without copying it. The file, and its backing files, must stay where they are, which is not
    /// the directory of the volumes, and must not change as long as the volume exists. That they have not is not looked for.
    /// </summary>
    public DiskImageFile? BasedOn { get; init; }

    /// <summary>A directory of the host to share with guests. No block device: instances that have it cannot be branched.</summary>
    public string? HostPath { get; init; }

    /// <summary>What is on an empty volume. Default: <see cref="VolumeFilesystem.Ext4"/>. Only with <see cref="SizeMb"/>.</summary>
    public VolumeFilesystem? Filesystem { get; init; }

    /// <summary>Tags: up to 16, each of 1 to 256 letters, digits and <c>- + _ . : =</c>. Repeated ones count once. Default: none.</summary>
    public IReadOnlyList<string>? Tags { get; init; }

    /// <summary>Whether deletion is refused. Default: false.</summary>
    public bool DeleteLock { get; init; }
}

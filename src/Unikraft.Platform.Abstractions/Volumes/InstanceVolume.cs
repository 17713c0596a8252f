namespace Unikraft.Platform;

/// <summary>
/// A volume for an instance that is created: an existing one, or with <see cref="SizeMb"/> a new one that the instance owns and that is deleted with it.
/// </summary>
public sealed record InstanceVolume
{
    /// <summary>The volume to attach.</summary>
    public NameOrUuid? Volume { get; init; }

    /// <summary>The size in MiB of a new volume: 1 to 1 048 576.</summary>
    public int? SizeMb { get; init; }

    /// <summary>What is on a new volume. Default: <see cref="VolumeFilesystem.Ext4"/>. Only with <see cref="SizeMb"/>.</summary>
    public VolumeFilesystem? Filesystem { get; init; }

    /// <summary>Where the guest mounts it, by the rules of <see cref="AttachVolumeRequest.At"/>.</summary>
    public required string At { get; init; }

    /// <summary>Whether the guest can only read it. Default: false.</summary>
    public bool ReadOnly { get; init; }
}

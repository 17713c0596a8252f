namespace Unikraft.Platform;

/// <summary>A volume that is attached to an instance, seen from the volume.</summary>
public sealed record VolumeAttachment
{
    /// <summary>The UUID of the instance.</summary>
    public required Guid InstanceUuid { get; init; }

    /// <summary>The name of the instance.</summary>
    public required string InstanceName { get; init; }

    /// <summary>Where the guest mounts it.</summary>
    public required string At { get; init; }

    /// <summary>Whether the guest can only read it.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Whether the instance uses it at the moment.</summary>
    public bool IsMounted { get; init; }

    /// <summary>What has been asked for and waits for the instance to stop; <see langword="null"/> when nothing does.</summary>
    public VolumeUpdate? Pending { get; init; }
}

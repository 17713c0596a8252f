namespace Unikraft.Platform;

/// <summary>What is known of a volume at one moment. Immutable: ask again for news.</summary>
public sealed record Volume
{
    /// <summary>The UUID, which never changes and is never used again.</summary>
    public required Guid Uuid { get; init; }

    /// <summary>The name, unique among the volumes of the platform; <see langword="null"/> for one that a branch, a checkpoint or a template owns.</summary>
    public string? Name { get; init; }

    /// <summary>When the volume was created.</summary>
    public required DateTimeOffset CreatedAt { get; init; }

    /// <summary>The state.</summary>
    public required VolumeState State { get; init; }

    /// <summary>The size in MiB, rounded up; 0 for a directory of the host.</summary>
    public required int SizeMb { get; init; }

    /// <summary>Whether the volume stays when the instances that have it are gone.</summary>
    public required bool Persistent { get; init; }

    /// <summary>The instances that the volume is attached to.</summary>
    public IReadOnlyList<VolumeAttachment> AttachedTo { get; init; } = [];

    /// <summary>What is on it, as far as the platform has made it.</summary>
    public required VolumeFilesystem Filesystem { get; init; }

    /// <summary>The directory of the host, for <see cref="VolumeFilesystem.Virtiofs"/>.</summary>
    public string? HostPath { get; init; }

    /// <summary>How many images its contents are spread over; 0 for a directory of the host.</summary>
    public int Depth { get; init; }

    /// <summary>The last error of the host that its guest met, since it was last mounted; or why it cannot be used.</summary>
    public string? Error { get; init; }

    /// <summary>The tags, in the order in which they were added.</summary>
    public IReadOnlyList<string> Tags { get; init; } = [];

    /// <summary>Whether deletion is refused.</summary>
    public bool DeleteLock { get; init; }
}

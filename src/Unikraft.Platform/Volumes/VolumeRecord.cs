namespace Unikraft.Platform.Volumes;

/// <summary>What is written down of a volume.</summary>
internal sealed record VolumeRecord
{
    public required Guid Uuid { get; init; }

    public string? Name { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }

    /// <summary>How many volumes had been made before, and this one: clocks jump, and lists go on in the order of making.</summary>
    public long Order { get; init; }

    /// <summary>The name of the image that takes the writes; <see langword="null"/> for what is no block device.</summary>
    public string? Top { get; init; }

    /// <summary>The size in bytes.</summary>
    public long Size { get; init; }

    /// <summary>The size that it is being given; <see langword="null"/> when nothing is under way. What its image says was done.</summary>
    public long? ResizingTo { get; init; }

    public VolumeFilesystem Filesystem { get; init; }

    public string? HostPath { get; init; }

    /// <summary>The name of a ROM, when this is no volume but one of the ROMs of the snapshot that owns it: <see cref="HostPath"/> is its file then.</summary>
    public string? Rom { get; init; }

    public bool IsTemplate { get; init; }

    /// <summary>The instance, or the snapshot, that the volume is deleted with; <see langword="null"/> for a persistent one.</summary>
    public Guid? Owner { get; init; }

    /// <summary>Whether its owner is a snapshot in a file, which is there again after a restart.</summary>
    public bool IsKept { get; init; }

    /// <summary>Whether there is nothing but volumes in the snapshot that owns it: its instance did not run.</summary>
    public bool HasNoMemory { get; init; }

    /// <summary>The volume that this is a cut of, and that takes its place when the instance which has that becomes a template that continues from the snapshot that owns this.</summary>
    public Guid? Adopts { get; init; }

    /// <summary>The instance that is becoming such a template: once there is one of its id, <see cref="Adopts"/> takes the place of this.</summary>
    public Guid? Adopter { get; init; }

    /// <summary>Where it goes in an instance made from the snapshot that owns it.</summary>
    public int Slot { get; init; }

    /// <inheritdoc cref="Slot"/>
    public string At { get; init; } = "";

    /// <inheritdoc cref="Slot"/>
    public bool ReadOnly { get; init; }

    /// <summary>
    /// How often a machine that continued from a snapshot has been given it to write to. A snapshot that was kept before the last time does not go with it any more.
    /// </summary>
    public int Resumptions { get; init; }

    /// <summary>Why what is written down of it may not be all; <see langword="null"/> when it is.</summary>
    public string? Damage { get; init; }

    /// <summary>Files outside the directory that its images are based on.</summary>
    /// <remarks>What a record of an earlier version does not have is given as null.</remarks>
    public IReadOnlyList<string> Bases { get; init => field = value ?? []; } = [];

    public IReadOnlyList<string> Tags { get; init => field = value ?? []; } = [];

    public bool DeleteLock { get; init; }

    /// <summary>The images of a template that is kept, the top first: they do not change any more, and are verified against this.</summary>
    public IReadOnlyList<ImageChecksum> Images { get; init => field = value ?? []; } = [];

    /// <summary>In a line of the journal: the image beneath those, of which, and of what that is based on, an earlier line has said all.</summary>
    public ImageChecksum? Beneath { get; init; }
}

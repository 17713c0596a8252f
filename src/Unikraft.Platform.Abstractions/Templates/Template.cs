using System.Collections.ObjectModel;

namespace Unikraft.Platform;

/// <summary>What is known of a template at one moment. Immutable: ask again for news.</summary>
public sealed record Template
{
    /// <summary>The UUID, which is that of the instance it was made of.</summary>
    public required Guid Uuid { get; init; }

    /// <summary>The name, which is that of the instance it was made of. No instance can have it while the template exists.</summary>
    public required string Name { get; init; }

    /// <summary>The state, which is always <see cref="TemplateState.Template"/>.</summary>
    public TemplateState State { get; init; }

    /// <summary>When the instance was created that it was made of.</summary>
    public required DateTimeOffset CreatedAt { get; init; }

    /// <summary>When the instance became a template, by the clock of the platform.</summary>
    public required DateTimeOffset ConvertedAt { get; init; }

    /// <summary>The name of the image.</summary>
    public required string Image { get; init; }

    /// <summary>The number of vCPUs.</summary>
    public required int Vcpus { get; init; }

    /// <summary>The size of the memory in MiB.</summary>
    public required int MemoryMb { get; init; }

    /// <summary>The arguments of the app.</summary>
    public required IReadOnlyList<string> Args { get; init; }

    /// <summary>The environment of the app.</summary>
    public required IReadOnlyDictionary<string, string> Env { get; init; }

    /// <summary>What the instance was made from that became the template, when it was not made from an image alone: another template, for example.</summary>
    public InstanceOrigin? Origin { get; init; }

    /// <summary>How many instances were made from the template; clones that failed do not count.</summary>
    public int CloneCount { get; init; }

    /// <summary>Bytes of memory that were stored for this template, on top of what it descends from. 0 for one made of a stopped instance.</summary>
    public long StoredBytes { get; init; }

    /// <summary>The volume templates that each instance made from it gets its own clones of.</summary>
    public IReadOnlyList<AttachedVolume> Volumes { get; init; } = [];

    /// <summary>The ROMs that each instance made from it has.</summary>
    public IReadOnlyList<InstanceRom> Roms { get; init; } = [];

    /// <summary>The tags, in the order in which they were added.</summary>
    public IReadOnlyList<string> Tags { get; init; } = [];

    /// <summary>Whatever was noted, by key: see <see cref="CreateInstanceRequest.Annotations"/>.</summary>
    public IReadOnlyDictionary<string, string> Annotations { get; init; } = ReadOnlyDictionary<string, string>.Empty;

    /// <summary>Whether deletion is refused.</summary>
    public bool DeleteLock { get; init; }

    /// <summary>When the template is removed for want of use; <see langword="null"/> for never.</summary>
    public AutokillPolicy? Autokill { get; init; }
}

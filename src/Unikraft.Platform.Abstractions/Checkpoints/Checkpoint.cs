using System.Collections.ObjectModel;

namespace Unikraft.Platform;

/// <summary>What is known of a checkpoint at one moment. Immutable: ask again for news.</summary>
public sealed record Checkpoint
{
    /// <summary>The UUID, which never changes and is never used again.</summary>
    public required Guid Uuid { get; init; }

    /// <summary>The name, unique among the checkpoints of the platform.</summary>
    public required string Name { get; init; }

    /// <summary>When the checkpoint was asked for, by the clock of the platform.</summary>
    public required DateTimeOffset CreatedAt { get; init; }

    /// <summary>The state. Only a <see cref="CheckpointState.Ready"/> one can be loaded.</summary>
    public required CheckpointState State { get; init; }

    /// <summary>The UUID of the instance it was taken from, which may be gone by now.</summary>
    public required Guid SourceUuid { get; init; }

    /// <summary>The name of the image of that instance.</summary>
    public required string Image { get; init; }

    /// <summary>The number of vCPUs.</summary>
    public required int Vcpus { get; init; }

    /// <summary>The size of the memory in MiB.</summary>
    public required int MemoryMb { get; init; }

    /// <summary>The arguments of the app.</summary>
    public required IReadOnlyList<string> Args { get; init; }

    /// <summary>The environment of the app.</summary>
    public required IReadOnlyDictionary<string, string> Env { get; init; }

    /// <summary>How many instances were made from the checkpoint; loads that failed do not count.</summary>
    public int LoadCount { get; init; }

    /// <summary>Bytes of memory that were stored for this checkpoint, on top of its lineage. 0 for one of a stopped instance.</summary>
    public long StoredBytes { get; init; }

    /// <summary>How long the source stood still for the snapshot, as the backend measured it; <see langword="null"/> when the source did not run, and until it is ready.</summary>
    public TimeSpan? Pause { get; init; }

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

    /// <summary>When the checkpoint is removed for want of use: in the API <c>checkpoint_autokill</c>. <see langword="null"/> for never.</summary>
    public AutokillPolicy? Autokill { get; init; }
}

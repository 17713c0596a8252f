using System.Collections.ObjectModel;

namespace Unikraft.Platform;

/// <summary>What is known of an instance at one moment. Immutable: ask again for news.</summary>
public sealed record Instance
{
    /// <summary>The UUID, which never changes and is never used again.</summary>
    public required Guid Uuid { get; init; }

    /// <summary>The name, unique among the instances of the platform.</summary>
    public required string Name { get; init; }

    /// <summary>When the instance was asked for, by the clock of the platform.</summary>
    public required DateTimeOffset CreatedAt { get; init; }

    /// <summary>The state.</summary>
    public required InstanceState State { get; init; }

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

    /// <summary>What happens when the instance stops from within.</summary>
    public required RestartPolicy RestartPolicy { get; init; }

    /// <summary>What the instance was made from, when it was not made from an image alone.</summary>
    public InstanceOrigin? Origin { get; init; }

    /// <summary>How often the instance was started, restarts included.</summary>
    public int StartCount { get; init; }

    /// <summary>How many restarts by the <see cref="RestartPolicy"/> were completed.</summary>
    public int RestartCount { get; init; }

    /// <summary>The restart sequence; <see langword="null"/> when there is none under way.</summary>
    public RestartStatus? Restart { get; init; }

    /// <summary>When the instance was last started, by the clock of the platform; <see langword="null"/> before its first start.</summary>
    public DateTimeOffset? StartedAt { get; init; }

    /// <summary>When the instance last stopped, by the clock of the platform; <see langword="null"/> before its first stop.</summary>
    public DateTimeOffset? StoppedAt { get; init; }

    /// <summary>How long the instance has been up since its last start, or was when it stopped: 0 before its first start.</summary>
    public TimeSpan Uptime { get; init; }

    /// <summary>
    /// How long the last start took, from the request until the app reached its main entry point or, for a restored instance, until its
    /// vCPUs ran. Whole microseconds; <see langword="null"/> until then.
    /// </summary>
    public TimeSpan? BootTime { get; init; }

    /// <summary>Where the shutdown came from; <see langword="null"/> unless draining, stopping, stopped or in standby after a start.</summary>
    public StopReason? StopReason { get; init; }

    /// <summary>The exit code of the app, when <see cref="StopReason"/> has the bit <see cref="Platform.StopReason.App"/>.</summary>
    public int? ExitCode { get; init; }

    /// <summary>The stop code of the guest's kernel, when <see cref="StopReason"/> has the bit <see cref="Platform.StopReason.Kernel"/>.</summary>
    public StopCode? StopCode { get; init; }

    /// <summary>The CPU exception that ended the instance, if one did.</summary>
    public GuestFault? Fault { get; init; }

    /// <summary>Switched-on features.</summary>
    public InstanceFeatures Features { get; init; }

    /// <summary>Whether the instance goes to standby while nobody uses it; <see langword="null"/> when it does not.</summary>
    public ScaleToZero? ScaleToZero { get; init; }

    /// <summary>
    /// Whether the instance, which is not running, holds a snapshot of its memory that its next start continues from. Without one that boots the image.
    /// </summary>
    public bool HasSnapshot { get; init; }

    /// <summary>The volumes, by the order in which they were attached.</summary>
    public IReadOnlyList<AttachedVolume> Volumes { get; init; } = [];

    /// <summary>The ROMs, by the order in which the guest has them.</summary>
    public IReadOnlyList<InstanceRom> Roms { get; init; } = [];

    /// <summary>What it is to be reached at, by port. Whoever carries connections to it serves these: see <see cref="InstanceService"/>.</summary>
    public IReadOnlyList<InstanceService> Services { get; init; } = [];

    /// <summary>Changes that were asked for and are not in effect yet: see <see cref="PatchOperation"/>. In the API they are <c>pending</c>.</summary>
    public IReadOnlyList<PatchOperation> Updates { get; init; } = [];

    /// <summary>The tags, in the order in which they were added.</summary>
    public IReadOnlyList<string> Tags { get; init; } = [];

    /// <summary>Whatever was noted, by key: see <see cref="CreateInstanceRequest.Annotations"/>.</summary>
    public IReadOnlyDictionary<string, string> Annotations { get; init; } = ReadOnlyDictionary<string, string>.Empty;

    /// <summary>Whether deletion is refused.</summary>
    public bool DeleteLock { get; init; }

    /// <summary>When the instance is removed for want of use; <see langword="null"/> for never.</summary>
    public AutokillPolicy? Autokill { get; init; }
}

using System.ComponentModel;

namespace Unikraft.Platform;

/// <summary>
/// Describes an instance to create. Exactly one of <see cref="Image"/>, <see cref="BranchFrom"/>, <see cref="Checkpoint"/> and
/// <see cref="Template"/> is set.
/// </summary>
public sealed record CreateInstanceRequest
{
    /// <summary>
    /// The name: 1 to 63 letters, digits and hyphens, beginning and ending with a letter or digit, and not in the form of a UUID. Default: the
    /// file name of the image or the name of the source, with five random characters behind it.
    /// </summary>
    public string? Name { get; init; }

    /// <summary>The image to boot.</summary>
    public GuestImage? Image { get; init; }

    /// <summary>The instance to branch from. A running source goes on running; the branch continues from the same state.</summary>
    public NameOrUuid? BranchFrom { get; init; }

    /// <summary>How the snapshot of a running source is taken. Only with <see cref="BranchFrom"/>. Default: as <see cref="SnapshotOptions"/> says.</summary>
    public SnapshotOptions? Snapshot { get; init; }

    /// <summary>The checkpoint to load.</summary>
    public NameOrUuid? Checkpoint { get; init; }

    /// <summary>The template to clone.</summary>
    public NameOrUuid? Template { get; init; }

    /// <summary>The arguments of the app. Inherited, and not to be set, with a source: a branch, a checkpoint or a template.</summary>
    public IReadOnlyList<string>? Args { get; init; }

    /// <summary>The environment of the app. Inherited, and not to be set, with a source: a branch, a checkpoint or a template.</summary>
    public IReadOnlyDictionary<string, string>? Env { get; init; }

    /// <summary>The size of the memory in MiB, in the range of the backend: <see cref="HypervisorInfo"/>. Default: that of the platform's options, 128. Inherited, and not to be set, with a source.</summary>
    public int? MemoryMb { get; init; }

    /// <summary>The number of vCPUs, from 1 up to <see cref="HypervisorInfo.MaxVcpus"/>. Default: that of the platform's options, 1. Inherited, and not to be set, with a source.</summary>
    public int? Vcpus { get; init; }

    /// <summary>
    /// Volumes to attach, in addition to those that are inherited with a source: a clone gets its own of each. Up to 4 altogether. Default: none.
    /// </summary>
    public IReadOnlyList<InstanceVolume>? Volumes { get; init; }

    /// <summary>ROMs, in addition to those that are inherited with a source. Up to 8 altogether. Default: none.</summary>
    public IReadOnlyList<InstanceRom>? Roms { get; init; }

    /// <summary>
    /// What the instance is to be reached at: each port once. Not inherited with a source, and shared by replicas. Default: none.
    /// </summary>
    public IReadOnlyList<InstanceService>? Services { get; init; }

    /// <summary>What happens when the instance stops from within. Default: <see cref="Platform.RestartPolicy.Never"/>.</summary>
    public RestartPolicy RestartPolicy { get; init; }

    /// <summary>Whether the instance is started at once. Default: true.</summary>
    public bool Autostart { get; init; } = true;

    /// <summary>
    /// How long to wait for the instance to be <see cref="InstanceState.Running"/>: 0 to 49 days, in the API <c>timeout_s</c>. Default: <see langword="null"/>.
    /// <see langword="null"/> and 0 do not wait; <see cref="System.Threading.Timeout.InfiniteTimeSpan"/> waits for ever. To wait needs <see cref="Autostart"/>.
    /// </summary>
    public TimeSpan? WaitTimeout { get; init; }

    /// <summary>
    /// The same in milliseconds, rounded up to the next full second. Deprecated, for compatibility: ignored when <see cref="WaitTimeout"/> is set.
    /// Default: <see langword="null"/>. 0 does not wait, -1 waits for ever.
    /// </summary>
    [EditorBrowsable(EditorBrowsableState.Never)]
    public long? WaitTimeoutMs { get; init; }

    /// <summary>Switched-on features. Default: none.</summary>
    public InstanceFeatures Features { get; init; }

    /// <summary>
    /// Whether the instance goes to standby while nobody uses it. Default: <see langword="null"/>, it does not. Not with
    /// <see cref="InstanceFeatures.DeleteOnStop"/>.
    /// </summary>
    public ScaleToZero? ScaleToZero { get; init; }

    /// <summary>Tags: up to 16, each of 1 to 256 letters, digits and <c>- + _ . : =</c>. Repeated ones count once. Default: none.</summary>
    public IReadOnlyList<string>? Tags { get; init; }

    /// <summary>
    /// Whatever the caller wants to note, by key: up to 256, with those that are inherited with a source, of which these replace the ones with their keys. A key is a name of 1 to 63 letters, digits and
    /// <c>- _ .</c>, which begins and ends with a letter or digit, with or without a lower-case DNS name and <c>/</c> before it; values have no ASCII control characters. Default: none.
    /// </summary>
    public IReadOnlyDictionary<string, string>? Annotations { get; init; }

    /// <summary>Whether deletion is refused. Default: false.</summary>
    public bool DeleteLock { get; init; }

    /// <summary>When the instance is removed for want of use. Default: as the template it is cloned from; else never.</summary>
    public AutokillPolicy? Autokill { get; init; }
}

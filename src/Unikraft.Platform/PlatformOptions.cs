namespace Unikraft.Platform;

/// <summary>The settings of a platform. Read and validated once, when the platform is built.</summary>
public sealed class PlatformOptions
{
    /// <summary>
    /// How long a guest has for shutting down when it is asked to, before its kernel kills the app. Default: 5 s. 0 kills at once;
    /// <see cref="Timeout.InfiniteTimeSpan"/> waits for ever. Otherwise at most 24 hours.
    /// </summary>
    public TimeSpan StopGracePeriod { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>
    /// How many bytes of console output are kept for each instance. Default: 1 MiB. From 4 KiB to 1 GiB. In the data directory a log never takes more than about
    /// three times as much and 64 KiB: it is written anew, with what is kept, when it has become longer than twice as much.
    /// </summary>
    public int LogCapacityBytes { get; set; } = 1 << 20;

    /// <summary>The memory in MiB of an instance whose request does not say. Default: 128. At least 1.</summary>
    public int DefaultMemoryMb { get; set; } = 128;

    /// <summary>The number of vCPUs of an instance whose request does not say. Default: 1. From 1 to 256.</summary>
    public int DefaultVcpus { get; set; } = 1;

    /// <summary>
    /// The longest that a running instance should stand still for a snapshot whose request does not say: see <see cref="SnapshotOptions.PauseBudget"/>. Default:
    /// 10 ms. At least 1 ms; <see cref="Timeout.InfiniteTimeSpan"/> never slows a guest down.
    /// </summary>
    public TimeSpan SnapshotPauseBudget { get; set; } = TimeSpan.FromMilliseconds(10);

    /// <summary>
    /// Up to how many instances of the platform, however they were made, guests can fork themselves from inside: beyond that their call returns
    /// <c>EAGAIN</c>. A guest that forks without end would otherwise use up the host. Default: 256. 0: guests cannot fork.
    /// </summary>
    public int MaxInstancesForForks { get; set; } = 256;

    /// <summary>
    /// The directory in which instances, templates, checkpoints and their history outlive the process: docs/data-directory.md. It is made if need be, and belongs to
    /// one platform at a time. Default: <see langword="null"/>, nothing outlives the platform.
    /// </summary>
    public string? DataDirectory { get; set; }

    /// <summary>What the data directory survives. Default: <see cref="Durability.Synced"/>.</summary>
    public Durability Durability { get; set; }

    /// <summary>
    /// So many bytes of the disk of the data directory stay free: a checkpoint or template that would use them fails, and nothing else does. Default: 64 MiB. At least 0.
    /// </summary>
    public long MinFreeDiskBytes { get; set; } = 64 << 20;

    /// <summary>
    /// The longest that an instance drains its connections before it is stopped, and how long one drains whose <see cref="StopRequest.DrainTimeout"/> is
    /// <see cref="Timeout.InfiniteTimeSpan"/>. Default: 1 hour. More than 0, up to 24 hours.
    /// </summary>
    public TimeSpan MaxDrainTimeout { get; set; } = TimeSpan.FromHours(1);

    /// <summary>What the platform is licensed for. Default: <see langword="null"/>, everything.</summary>
    public PlatformLicense? License { get; set; }

    /// <summary>How much of the host the platform may use. Default: no limits.</summary>
    public PlatformQuotas Quotas { get; set; } = new();

    /// <summary>
    /// The directory of the volumes, which this platform has for itself. Volumes are there again when it is next used. Default: <see langword="null"/>,
    /// <c>volumes</c> in the data directory; without one, a directory for temporary files that is deleted with the platform.
    /// </summary>
    public string? VolumeDirectory { get; set; }

    /// <summary>The program that makes ext4 file systems. Default: <see langword="null"/>, the <c>mkfs.ext4</c> of the host, if it has one.</summary>
    public string? MkfsExt4Path { get; set; }
}

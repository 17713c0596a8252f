namespace Unikraft.Platform;

/// <summary>How much of a host a platform may use. <see langword="null"/> is no limit. Limits are 0 or more.</summary>
public sealed record PlatformQuotas
{
    /// <summary>How many instances, templates and checkpoints there may be.</summary>
    public int? Instances { get; init; }

    /// <summary>How many instances may run at the same time: those that are neither stopped nor in standby.</summary>
    public int? LiveInstances { get; init; }

    /// <summary>How many vCPUs those may have together.</summary>
    public int? LiveVcpus { get; init; }

    /// <summary>How many MiB of memory those may have together.</summary>
    public long? LiveMemoryMb { get; init; }
}

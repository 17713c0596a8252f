using System.Collections.Immutable;

namespace Unikraft.Platform;

/// <summary>Runtime statistics of an instance at one moment.</summary>
/// <remarks>
/// What is said to count since the last start keeps its last value while the instance does not run. The counters of the network are 0 as long as the instance has no
/// network.
/// </remarks>
public sealed record InstanceMetrics
{
    /// <summary>The UUID of the instance.</summary>
    public required Guid Uuid { get; init; }

    /// <summary>Its name.</summary>
    public required string Name { get; init; }

    /// <summary>Its state.</summary>
    public required InstanceState State { get; init; }

    /// <summary>How often it was started.</summary>
    public int StartCount { get; init; }

    /// <summary>How often the restart policy started it.</summary>
    public int RestartCount { get; init; }

    /// <summary>When it was last started.</summary>
    public DateTimeOffset? StartedAt { get; init; }

    /// <summary>When it last stopped.</summary>
    public DateTimeOffset? StoppedAt { get; init; }

    /// <summary>How long it has been up since its last start.</summary>
    public TimeSpan Uptime { get; init; }

    /// <summary>How long its last start took.</summary>
    public TimeSpan? BootTime { get; init; }

    /// <summary>How long setting up its network took.</summary>
    public TimeSpan? NetTime { get; init; }

    /// <summary>The memory of the guest that is in the host's memory, in bytes; pages that it shares with other instances included. 0 unless it runs.</summary>
    public long RssBytes { get; init; }

    /// <summary>The CPU time that its vCPUs have consumed since the last start.</summary>
    public TimeSpan CpuTime { get; init; }

    /// <summary>Bytes received over the network.</summary>
    public long RxBytes { get; init; }

    /// <summary>Packets received from the network.</summary>
    public long RxPackets { get; init; }

    /// <summary>Bytes transmitted over the network.</summary>
    public long TxBytes { get; init; }

    /// <summary>Packets transmitted over the network.</summary>
    public long TxPackets { get; init; }

    /// <summary>Active connections: see <see cref="IInstanceManager.ConnectAsync"/>. In the API <c>nconns</c>.</summary>
    public int Connections { get; init; }

    /// <summary>Active HTTP requests. In the API <c>nreqs</c>. 0 as long as nobody in the platform looks into connections.</summary>
    public int Requests { get; init; }

    /// <summary>Connections that wait for the instance to run. In the API <c>nqueued</c>.</summary>
    public int Queued { get; init; }

    /// <summary>Connections since the last start. In the API <c>ntotal</c>.</summary>
    public long TotalConnections { get; init; }

    /// <summary>How long those connections waited that started the instance: the histogram, from the shortest latency to the longest.</summary>
    public ImmutableArray<WakeupBucket> WakeupLatency { get; init; } = [];

    /// <summary>The sum of those latencies.</summary>
    public TimeSpan WakeupLatencySum { get; init; }
}

using System.Collections.Immutable;

namespace Unikraft.Platform;

/// <summary>Runtime statistics of an instance at one moment.</summary>
/// <remarks>
/// What is said to count since the last start keeps its last value while the instance does not run. Moments and durations are measured by the clock of the platform,
/// the memory and the CPU time by the backend, of this machine alone. The platform has no network of its own yet: what counts bytes and packets is 0, which is how
/// many there were, and connections are those that whoever carries them announces by <see cref="IInstanceManager.ConnectAsync"/>.
/// </remarks>
public sealed record InstanceMetrics
{
    /// <summary>The UUID of the instance.</summary>
    public required Guid Uuid { get; init; }

    /// <summary>Its name.</summary>
    public required string Name { get; init; }

    /// <summary>Its state.</summary>
    public required InstanceState State { get; init; }

    /// <summary>How often it was started, restarts included. In the API <c>start_count</c>.</summary>
    public int StartCount { get; init; }

    /// <summary>How often the restart policy started it. In the API <c>restart_count</c>, left out when 0.</summary>
    public int RestartCount { get; init; }

    /// <summary>When it was last started; <see langword="null"/> before that. In the API <c>started_at</c>, in whole seconds.</summary>
    public DateTimeOffset? StartedAt { get; init; }

    /// <summary>When it last stopped; <see langword="null"/> before that. In the API <c>stopped_at</c>, in whole seconds.</summary>
    public DateTimeOffset? StoppedAt { get; init; }

    /// <summary>How long it has been up since its last start. In the API <c>uptime_ms</c>, in whole milliseconds.</summary>
    public TimeSpan Uptime { get; init; }

    /// <summary>How long its last start took: see <see cref="Instance.BootTime"/>. In the API <c>boot_time_us</c>, left out until it is known.</summary>
    public TimeSpan? BootTime { get; init; }

    /// <summary>How long setting up its network took; <see langword="null"/> without one. In the API <c>net_time_us</c>, left out without one.</summary>
    public TimeSpan? NetTime { get; init; }

    /// <summary>The memory of the guest that is in the host's memory, in bytes; pages that it shares with other instances included. 0 unless it runs, and with a backend that does not measure it.</summary>
    public long RssBytes { get; init; }

    /// <summary>The CPU time that the threads of its vCPUs have consumed since the last start. In the API <c>cpu_time_ms</c>. 0 with a backend that does not measure it.</summary>
    public TimeSpan CpuTime { get; init; }

    /// <summary>Bytes received over the network since the last start. In the API <c>rx_bytes</c>.</summary>
    public long RxBytes { get; init; }

    /// <summary>Packets received from the network since the last start. In the API <c>rx_packets</c>.</summary>
    public long RxPackets { get; init; }

    /// <summary>Bytes transmitted over the network since the last start. In the API <c>tx_bytes</c>.</summary>
    public long TxBytes { get; init; }

    /// <summary>Packets transmitted over the network since the last start. In the API <c>tx_packets</c>.</summary>
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

    /// <summary>The sum of those latencies. In the API <c>wakeup_latency_sum</c>, in whole milliseconds.</summary>
    public TimeSpan WakeupLatencySum { get; init; }
}

namespace Unikraft.Platform.Diagnostics;

/// <summary>One of the numbers that are told of every instance: how it is called, and where it comes from. The same for Prometheus and for meters.</summary>
/// <param name="Name">The public name.</param>
/// <param name="MeterName">The name of the instrument; <see langword="null"/> when another instrument tells it.</param>
/// <param name="Unit">The unit of the instrument.</param>
/// <param name="Help">What it is.</param>
/// <param name="IsCounter">Whether it only grows, until the next start.</param>
/// <param name="Value">The value; <see langword="null"/> when there is none. Durations are seconds, moments are seconds since 1970.</param>
internal sealed record InstanceMetric(
    string Name,
    string? MeterName,
    string? Unit,
    string Help,
    bool IsCounter,
    Func<InstanceMetrics, double?> Value)
{
    /// <summary>Whether the value needs a look through the guest's memory.</summary>
    public bool NeedsMemory { get; private init; }

    /// <summary>All but the histogram, in their public order.</summary>
    public static IReadOnlyList<InstanceMetric> All { get; } =
    [
        new(
            "instance_state",
            MeterName: null,
            Unit: null,
            "State: 0 stopped, 1 starting, 2 running, 3 draining, 4 stopping, 5 standby.",
            IsCounter: false,
            static m => (int)m.State),
        new("instance_start_count", "unikraft.instance.starts", "{start}", "Number of starts.", IsCounter: true, static m => m.StartCount),
        new(
            "instance_restart_count",
            "unikraft.instance.restart_count",
            "{restart}",
            "Number of restarts by the restart policy.",
            IsCounter: true,
            static m => m.RestartCount),
        new("instance_started_at", "unikraft.instance.started", "s", "Time of the last start.", IsCounter: false, static m => Seconds(m.StartedAt)),
        new("instance_stopped_at", "unikraft.instance.stopped", "s", "Time of the last stop.", IsCounter: false, static m => Seconds(m.StoppedAt)),
        new("instance_uptime_s", "unikraft.instance.uptime", "s", "Time since the last start.", IsCounter: false, static m => m.Uptime.TotalSeconds),
        new("instance_boot_time_s", "unikraft.instance.boot.duration", "s", "Boot time.", IsCounter: false, static m => m.BootTime?.TotalSeconds),
        new("instance_net_time_s", "unikraft.instance.net.duration", "s", "Network setup time.", IsCounter: false, static m => m.NetTime?.TotalSeconds),
        new("instance_rss_bytes", "unikraft.instance.rss", "By", "Resident set size.", IsCounter: false, static m => m.RssBytes) { NeedsMemory = true },
        new("instance_cpu_time_s", "unikraft.instance.cpu.time", "s", "Consumed CPU time.", IsCounter: true, static m => m.CpuTime.TotalSeconds),
        new("instance_rx_bytes", "unikraft.instance.rx.bytes", "By", "Bytes received over the network.", IsCounter: true, static m => m.RxBytes),
        new("instance_rx_packets", "unikraft.instance.rx.packets", "{packet}", "Packets received from the network.", IsCounter: true, static m => m.RxPackets),
        new("instance_tx_bytes", "unikraft.instance.tx.bytes", "By", "Bytes transmitted over the network.", IsCounter: true, static m => m.TxBytes),
        new("instance_tx_packets", "unikraft.instance.tx.packets", "{packet}", "Packets transmitted over the network.", IsCounter: true, static m => m.TxPackets),
        new("instance_nconns", "unikraft.instance.connections", "{connection}", "Active connections.", IsCounter: false, static m => m.Connections),
        new("instance_nreqs", "unikraft.instance.requests", "{request}", "Active HTTP requests.", IsCounter: false, static m => m.Requests),
        new("instance_nqueued", "unikraft.instance.queued", "{connection}", "Queued connections or requests.", IsCounter: false, static m => m.Queued),
        new(
            "instance_ntotal",
            "unikraft.instance.connections.total",
            "{connection}",
            "Connections or requests since the start.",
            IsCounter: true,
            static m => m.TotalConnections),
    ];

    private static double? Seconds(DateTimeOffset? moment) => moment?.ToUnixTimeSeconds();
}

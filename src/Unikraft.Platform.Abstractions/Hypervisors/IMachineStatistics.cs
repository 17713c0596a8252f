namespace Unikraft.Platform.Hypervisors;

/// <summary>What a machine has used.</summary>
public interface IMachineStatistics
{
    /// <summary>How often the guest was left for the backend, all vCPUs together.</summary>
    long Exits { get; }

    /// <summary>The memory of the machine that is its own, in bytes: pages written or copied since it was made.</summary>
    long PrivateBytes { get; }

    /// <summary>The memory of the machine that is in the host's memory, in bytes: its own and what it shares with others. 0 when it was disposed of.</summary>
    long ResidentBytes { get; }

    /// <summary>The CPU time that its vCPUs have consumed, all together: in the guest, in the host's kernel and in the backend.</summary>
    TimeSpan CpuTime { get; }
}

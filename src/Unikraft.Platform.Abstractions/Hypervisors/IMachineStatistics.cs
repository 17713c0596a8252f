namespace Unikraft.Platform.Hypervisors;

/// <summary>What a machine has used.</summary>
public interface IMachineStatistics
{
    /// <summary>How often the guest was left for the backend, all vCPUs together.</summary>
    long Exits { get; }

    /// <summary>The memory of the machine that is its own, in bytes: pages written or copied since it was made.</summary>
    long PrivateBytes { get; }
}

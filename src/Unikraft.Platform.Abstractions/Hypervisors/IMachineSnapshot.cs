namespace Unikraft.Platform.Hypervisors;

/// <summary>The complete state of a machine at one moment, from which any number of machines can be restored.</summary>
/// <remarks>Immutable. Disposing of it frees what no other snapshot and no machine needs.</remarks>
public interface IMachineSnapshot : IDisposable
{
    /// <summary>Bytes of memory that were stored for this snapshot, on top of the ones it builds on.</summary>
    long StoredBytes { get; }

    /// <summary>The number of snapshots it builds on, itself included; at least 1.</summary>
    int Depth { get; }

    /// <summary>How long the machine stood still.</summary>
    TimeSpan Pause { get; }
}

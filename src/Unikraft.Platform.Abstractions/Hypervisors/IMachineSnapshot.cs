namespace Unikraft.Platform.Hypervisors;

/// <summary>The complete state of a machine at one moment, from which any number of machines can be restored.</summary>
/// <remarks>Immutable. Disposing of it frees what no other snapshot and no machine needs.</remarks>
public interface IMachineSnapshot : IDisposable
{
    /// <summary>Bytes of memory that were stored for this snapshot, on top of the ones it builds on.</summary>
    long StoredBytes { get; }

    /// <summary>The number of snapshots it builds on, itself included; at least 1.</summary>
    int Depth { get; }

    /// <summary>The longest that the machine stood still at a time.</summary>
    TimeSpan Pause { get; }

    /// <summary>For how long the machine was held in slices before the cut, all together, because it wrote faster than it was copied.</summary>
    TimeSpan Throttled { get; }
}

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>A snapshot that is in the publication log, and has no files yet.</summary>
/// <param name="Record">Where it is.</param>
/// <param name="State">The state, in which root checksums of layers that were not computed yet are zero.</param>
internal sealed record PendingSnapshot(LogRecord Record, SnapshotState State)
{
    /// <summary>The room that is set aside for its files.</summary>
    internal IDisposable? Reservation { get; set; }

    /// <summary>How often the host has refused to read it.</summary>
    internal int Refusals { get; set; }
}

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>A snapshot in a publication log.</summary>
/// <param name="Sequence">The number of the record.</param>
/// <param name="Offset">Where it lies.</param>
/// <param name="Length">Its length.</param>
/// <param name="Snapshot">The snapshot.</param>
/// <param name="Layers">The layers that came with it.</param>
/// <param name="Body">The checksum of all but its first block.</param>
internal sealed record LogRecord(
    long Sequence,
    long Offset,
    long Length,
    Guid Snapshot,
    IReadOnlyList<LoggedLayer> Layers,
    RecordChecksum Body);

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>A record of a log that is not as it was written.</summary>
/// <param name="Snapshot">The snapshot; empty when not even that can be read.</param>
/// <param name="Layers">The layers that came with it.</param>
internal sealed record DamagedRecord(Guid Snapshot, IReadOnlyList<Guid> Layers);

namespace Unikraft.Platform.Volumes;

/// <summary>A volume as it was when a snapshot was taken.</summary>
/// <param name="Template">What it was.</param>
/// <param name="Slot">Where the guest has it.</param>
/// <param name="At">Where the guest mounts it.</param>
/// <param name="IsReadOnly">Whether the guest can only read it.</param>
/// <param name="Source">The volume that was cut.</param>
internal sealed record SnapshotVolume(StoredVolume Template, int Slot, string At, bool IsReadOnly, StoredVolume? Source);

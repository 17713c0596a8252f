namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>What a log holds that was not released.</summary>
/// <param name="Sound">The snapshots, oldest first.</param>
/// <param name="Damaged">Records that are not as they were written.</param>
/// <param name="IsReadable">Whether the host could read all of it: what is damaged else may be sound the next time.</param>
internal sealed record LogContents(IReadOnlyList<PendingSnapshot> Sound, IReadOnlyList<DamagedRecord> Damaged, bool IsReadable);

namespace Unikraft.Platform.Volumes;

/// <summary>A volume of a checkpoint in an archive.</summary>
/// <param name="Slot">Where the guest has it.</param>
/// <param name="At">Where the guest mounts it.</param>
/// <param name="IsReadOnly">Whether the guest can only read it.</param>
/// <param name="Size">The size in bytes.</param>
/// <param name="Filesystem">What it was made with.</param>
/// <param name="Images">The images that it consists of, the top first. Each names the next one as its backing file.</param>
internal sealed record ArchivedVolume(int Slot, string At, bool IsReadOnly, long Size, VolumeFilesystem Filesystem, IReadOnlyList<ImageChecksum> Images);

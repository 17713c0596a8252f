namespace Unikraft.Platform;

/// <summary>A volume that an instance, a checkpoint or a template has.</summary>
/// <param name="Uuid">The UUID of the volume.</param>
/// <param name="Name">Its name; <see langword="null"/> for one that has none.</param>
/// <param name="At">Where the guest mounts it.</param>
/// <param name="ReadOnly">Whether the guest can only read it.</param>
public sealed record AttachedVolume(Guid Uuid, string? Name, string At, bool ReadOnly);

namespace Unikraft.Platform;

/// <summary>What an instance was made from.</summary>
/// <param name="Kind">Whether the source was an instance, a checkpoint or a template.</param>
/// <param name="Uuid">The UUID of the source, which may be gone by now.</param>
/// <param name="Name">The name the source had.</param>
public sealed record InstanceOrigin(InstanceOriginKind Kind, Guid Uuid, string Name);

namespace Unikraft.Platform;

/// <summary>An entry of a checkpoint history.</summary>
/// <param name="Uuid">The UUID of the checkpoint.</param>
/// <param name="Name">The name of the checkpoint.</param>
/// <param name="CreatedAt">When it was created.</param>
public sealed record CheckpointReference(Guid Uuid, string Name, DateTimeOffset CreatedAt);

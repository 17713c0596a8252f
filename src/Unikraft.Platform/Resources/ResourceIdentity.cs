namespace Unikraft.Platform.Resources;

/// <summary>What a resource is known by, for all its life.</summary>
/// <param name="Uuid">Never used again.</param>
/// <param name="Name">Unique among the resources of its kind.</param>
/// <param name="CreatedAt">When it was requested.</param>
/// <param name="Order">Counts the resources of its kind.</param>
internal sealed record ResourceIdentity(Guid Uuid, string Name, DateTimeOffset CreatedAt, long Order);

namespace Unikraft.Platform;

/// <summary>A part of the log of an instance.</summary>
/// <param name="Instance">The instance.</param>
/// <param name="Range">Which part. Default: everything that is kept.</param>
public sealed record InstanceLogRequest(NameOrUuid Instance, LogRange? Range = null);

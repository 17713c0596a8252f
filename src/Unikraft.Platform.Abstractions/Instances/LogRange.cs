namespace Unikraft.Platform;

/// <summary>A part of a log, in bytes.</summary>
/// <param name="Offset">Where to begin: from the start of the log, or from its end when negative.</param>
/// <param name="Limit">How many bytes to return at most, from 0. Default: all.</param>
public sealed record LogRange(long Offset, int? Limit = null);

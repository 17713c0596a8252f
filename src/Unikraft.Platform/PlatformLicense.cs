namespace Unikraft.Platform;

/// <summary>What a platform is licensed for.</summary>
/// <param name="Branching">Whether instances can be branched.</param>
/// <param name="Checkpointing">Whether checkpoints can be taken.</param>
/// <param name="ValidUntil">Until when it is valid; <see langword="null"/> for ever.</param>
public sealed record PlatformLicense(bool Branching, bool Checkpointing, DateTimeOffset? ValidUntil = null);

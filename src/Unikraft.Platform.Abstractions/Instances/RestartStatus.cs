namespace Unikraft.Platform;

/// <summary>Where a restart sequence stands.</summary>
/// <param name="Attempt">Counts the restarts of this sequence, from 1.</param>
/// <param name="NextAt">When the next restart occurs, by the clock of the platform, if a back-off delay is in effect; else <see langword="null"/>.</param>
public sealed record RestartStatus(int Attempt, DateTimeOffset? NextAt);

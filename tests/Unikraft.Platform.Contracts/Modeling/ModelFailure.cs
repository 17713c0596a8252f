namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>A script that has failed.</summary>
/// <param name="History">What was done, in words.</param>
/// <param name="Error">What was wrong then.</param>
public sealed record ModelFailure(string History, Exception Error);

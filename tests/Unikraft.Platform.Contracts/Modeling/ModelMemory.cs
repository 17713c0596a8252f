namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>What a counter has in memory.</summary>
/// <param name="Nonce">What it made at boot; empty until it was seen.</param>
/// <param name="Tick">How often it has ticked.</param>
/// <param name="Mark">The last mark it was given.</param>
public sealed record ModelMemory(string Nonce, int Tick, string Mark)
{
    /// <summary>After a boot.</summary>
    public static ModelMemory Fresh { get; } = new("", 0, "");
}

namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>A small generator, the same on every runtime (SplitMix64).</summary>
/// <param name="seed">The seed.</param>
public sealed class Dice(ulong seed)
{
    private ulong _state = seed;

    /// <summary>A number from 0 to below the number of sides.</summary>
    /// <param name="sides">How many sides.</param>
    public int Next(int sides)
    {
        ulong z = _state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return (int)((z ^ (z >> 31)) % (ulong)sides);
    }
}

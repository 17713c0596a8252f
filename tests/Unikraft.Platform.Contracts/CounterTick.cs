using System.Globalization;

namespace Unikraft.Platform.Contracts;

/// <summary>A line that the counter guest prints at each tick.</summary>
/// <param name="Nonce">What it made at boot, and keeps in memory only.</param>
/// <param name="Tick">How often it has ticked.</param>
/// <param name="Generation">The generation id of its machine.</param>
public sealed record CounterTick(string Nonce, int Tick, string Generation)
{
    /// <summary>Parses the line.</summary>
    /// <param name="line">The line.</param>
    public static CounterTick Parse(string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        Dictionary<string, string> fields = line.Split(' ').Select(field => field.Split('=', 2)).ToDictionary(
            field => field[0],
            field => field[1],
            StringComparer.Ordinal);
        return new CounterTick(fields["nonce"], int.Parse(fields["tick"], CultureInfo.InvariantCulture), fields["gen"]);
    }
}

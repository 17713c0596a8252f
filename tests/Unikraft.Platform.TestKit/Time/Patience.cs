using System.Globalization;

namespace Unikraft.Platform.TestKit;

/// <summary>How long tests wait for what should happen at once: longer where everything is slow, on an emulated CPU for example.</summary>
public static class Patience
{
    /// <summary>The environment variable with the factor, a whole number of 1 or more.</summary>
    public const string Variable = "UNIKRAFT_TEST_PATIENCE";

    private static readonly int Factor = Parse(Environment.GetEnvironmentVariable(Variable));

    /// <summary>A limit, stretched by the factor of this host.</summary>
    /// <param name="limit">The limit on a machine of usual speed.</param>
    public static TimeSpan For(TimeSpan limit) => limit * Factor;

    /// <summary>Reads a factor.</summary>
    /// <param name="value">The value of the variable; without one the factor is 1.</param>
    /// <exception cref="InvalidOperationException">It is not a whole number of 1 or more.</exception>
    public static int Parse(string? value)
    {
        if (string.IsNullOrEmpty(value))
        {
            return 1;
        }

        return int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int factor) && factor >= 1
            ? factor
            : throw new InvalidOperationException($"{Variable} is {value}; it must be a whole number of 1 or more.");
    }
}

using System.Globalization;

namespace Unikraft.Platform.TestKit;

/// <summary>How often tests do what proves something only when it is done many times: less often where everything is slow, on an emulated CPU for example.</summary>
public static class Repetitions
{
    /// <summary>The environment variable: one in how many is left, a whole number of 1 or more.</summary>
    public const string Variable = "UNIKRAFT_TEST_ONE_IN";

    /// <summary>One in how many is left; 1 for all.</summary>
    public static int OneIn { get; } = Parse(Environment.GetEnvironmentVariable(Variable));

    /// <summary>How many of a number of repetitions are left.</summary>
    /// <param name="all">How many there are on a machine of usual speed.</param>
    /// <param name="least">How many are left anyway, where fewer would not get everywhere.</param>
    public static int Of(int all, int least = 1) => Math.Min(all, Math.Max(least, all / OneIn));

    /// <summary>Reads the variable.</summary>
    /// <param name="value">Its value; without one all are left.</param>
    /// <exception cref="InvalidOperationException">It is not a whole number of 1 or more.</exception>
    public static int Parse(string? value)
    {
        if (string.IsNullOrEmpty(value))
        {
            return 1;
        }

        return int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number >= 1
            ? number
            : throw new InvalidOperationException($"{Variable} is {value}; it must be a whole number of 1 or more.");
    }
}

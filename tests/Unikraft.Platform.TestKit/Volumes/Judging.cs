using System.Globalization;

namespace Unikraft.Platform.TestKit;

/// <summary>How much is done of what there are thousands of: cuts, faults, and images for QEMU to judge.</summary>
public static class Judging
{
    private const string Variable = "UNIKRAFT_JUDGING";

    private static readonly int Level = int.TryParse(Environment.GetEnvironmentVariable(Variable), NumberStyles.None, CultureInfo.InvariantCulture, out int level) ? level : 0;

    /// <summary>One in so many, by what the environment asks for.</summary>
    /// <param name="usually">At a desk.</param>
    /// <param name="more">When it asks for 1.</param>
    /// <param name="most">When it asks for 2 or more.</param>
    public static int OneIn(int usually, int more, int most = 1) => Level switch { 0 => usually, 1 => more, _ => most };
}

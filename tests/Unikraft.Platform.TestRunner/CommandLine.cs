using System.Globalization;
using System.Text.RegularExpressions;

namespace Unikraft.Platform.TestRunner;

/// <summary>What the runner was asked to do.</summary>
/// <param name="Filters">A test runs when its name contains one of these; all run when there is none.</param>
/// <param name="ExcludedTraits">A test with one of these traits does not run.</param>
/// <param name="SummaryFile">Where the closing line is written as well; null for nowhere else.</param>
/// <param name="Share">Which share of the tests to run, from 0.</param>
/// <param name="Shares">In how many shares the tests are parted.</param>
/// <param name="Repeated">A test that fails with a message that matches this is run once more, and that counts; null when every failure counts.</param>
internal sealed record CommandLine(
    IReadOnlyList<string> Filters,
    IReadOnlyList<KeyValuePair<string, string>> ExcludedTraits,
    string? SummaryFile,
    int Share,
    int Shares,
    Regex? Repeated)
{
    internal const string Usage = "usage: Unikraft.Platform.TestRunner [--filter TEXT]... [--exclude TRAIT=VALUE]... [--summary FILE] [--share N/SHARES] [--repeat REGEX]";

    /// <summary>Reads the arguments; null when they are wrong.</summary>
    internal static CommandLine? Parse(IReadOnlyList<string> args)
    {
        List<string> filters = [];
        List<KeyValuePair<string, string>> traits = [];
        string? summary = null;
        (int share, int shares) = (1, 1);
        Regex? repeated = null;
        if (args.Count % 2 != 0)
        {
            return null;
        }

        for (int i = 0; i < args.Count; i += 2)
        {
            string value = args[i + 1];
            switch (args[i])
            {
                case "--filter":
                    // The form that `dotnet test` takes is accepted too.
                    filters.Add(value.StartsWith("FullyQualifiedName~", StringComparison.Ordinal) ? value[(value.IndexOf('~', StringComparison.Ordinal) + 1)..] : value);
                    break;
                case "--exclude" when value.Split('=', 2) is [string name, string wanted]:
                    traits.Add(new(name, wanted));
                    break;
                case "--summary":
                    summary = value;
                    break;
                case "--share" when value.Split('/') is [string part, string whole]
                    && int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out share)
                    && int.TryParse(whole, NumberStyles.None, CultureInfo.InvariantCulture, out shares)
                    && share >= 1
                    && share <= shares:
                    break;
                case "--repeat":
                    repeated = new Regex(value, RegexOptions.NonBacktracking);
                    break;
                default:
                    return null;
            }
        }

        return new CommandLine(filters, traits, summary, share - 1, shares, repeated);
    }
}

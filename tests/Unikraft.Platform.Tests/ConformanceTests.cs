using System.Text.RegularExpressions;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed partial class ConformanceTests
{
    [Fact]
    public void Every_test_that_is_named_as_evidence_exists()
    {
        HashSet<string> tests = [.. Directory
            .EnumerateFiles(Repository.PathOf("tests"), "*.cs", SearchOption.AllDirectories)
            .SelectMany(file => Declaration().Matches(File.ReadAllText(file)).Select(match => match.Groups["name"].Value))];
        string[] rows = [.. Statements(File.ReadLines(Repository.PathOf("docs/conformance.md")))];
        string[] named = [.. rows.SelectMany(row => Evidence().Matches(row).Select(match => match.Groups["name"].Value))];

        Assert.NotEmpty(named);
        Assert.Empty(named.Where(name => !tests.Contains(name)).Distinct(StringComparer.Ordinal));
        // Every row says what shows it, or that nothing does.
        Assert.All(rows, row => Assert.True(row.Contains("| open", StringComparison.Ordinal) || Evidence().IsMatch(row), row));
    }

    /// <summary>The rows of the tables of statements; the page has a table of another kind as well.</summary>
    private static IEnumerable<string> Statements(IEnumerable<string> page)
    {
        bool statements = false;
        foreach (string line in page)
        {
            if (!line.StartsWith('|'))
            {
                statements = false;
            }
            else if (line.StartsWith("| statement |", StringComparison.Ordinal))
            {
                statements = true;
            }
            else if (statements && !line.StartsWith("|-", StringComparison.Ordinal))
            {
                yield return line;
            }
        }
    }

    [GeneratedRegex(@"public (async )?(Task|void) (?<name>\w+)\(", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Declaration();

    [GeneratedRegex(@"`(?<name>[A-Z][a-z0-9]*_\w+)`", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Evidence();
}

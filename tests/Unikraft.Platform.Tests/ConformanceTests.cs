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
        string[] rows = [.. File.ReadLines(Repository.PathOf("docs/conformance.md")).Where(line => line.StartsWith("| ", StringComparison.Ordinal))];
        string[] named = [.. rows.SelectMany(row => Evidence().Matches(row).Select(match => match.Groups["name"].Value))];

        Assert.NotEmpty(named);
        Assert.Empty(named.Where(name => !tests.Contains(name)).Distinct(StringComparer.Ordinal));
        // Every row says what shows it, or that nothing does.
        Assert.All(
            rows.Where(row => !row.StartsWith("| statement |", StringComparison.Ordinal)),
            row => Assert.True(row.Contains("| open", StringComparison.Ordinal) || Evidence().IsMatch(row), row));
    }

    [GeneratedRegex(@"public (async )?(Task|void) (?<name>\w+)\(", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Declaration();

    [GeneratedRegex(@"`(?<name>[A-Z][a-z0-9]*_\w+)`", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Evidence();
}

using System.Globalization;
using System.Reflection;
using System.Text.RegularExpressions;
using Unikraft.Platform.TestRunner;
using Xunit.Abstractions;
using Xunit.Sdk;

if (CommandLine.Parse(args) is not CommandLine command)
{
    await Console.Error.WriteLineAsync(CommandLine.Usage);
    return 2;
}

Assembly assembly = Assembly.Load("Unikraft.Platform.Kvm.Tests");
Discovery discovery = new();
using XunitTestFramework framework = new(discovery);
FrameworkOptions options = new();
options.SetValue<bool?>("xunit.discovery.PreEnumerateTheories", true);

using ITestFrameworkDiscoverer discoverer = framework.GetDiscoverer(Reflector.Wrap(assembly));
discoverer.Find(includeSourceInformation: false, discovery, options);
ITestCase[] wanted =
[
    .. (await discovery.GetTestsAsync())
        .Where(test => command.Filters.Count == 0 || command.Filters.Any(filter => Describe(test).Contains(filter, StringComparison.Ordinal)))
        .OrderBy(Describe, StringComparer.Ordinal)

        // Neighbours are alike, and as long.
        .Where((_, index) => index % command.Shares == command.Share),
];
ITestCase[] excluded = [.. wanted.Where(test => command.ExcludedTraits.Any(trait => HasTrait(test, trait)))];

using ITestFrameworkExecutor executor = framework.GetExecutor(assembly.GetName());
Execution execution = await RunAsync(wanted.Except(excluded), command.Repeated);
(int passed, int failed, int skipped) = (execution.Passed, execution.Failed, execution.Skipped);
if (execution.ToRepeat.Count > 0)
{
    Console.WriteLine();
    Console.WriteLine("once more:");
    Execution again = await RunAsync(execution.ToRepeat, repeated: null);
    (passed, failed, skipped) = (passed + again.Passed, failed + again.Failed, skipped + again.Skipped);
}

foreach (ITestCase test in excluded)
{
    Console.WriteLine($"  {test.DisplayName} EXCLUDED by its trait");
}

string summary = string.Create(CultureInfo.InvariantCulture, $"{passed} passed, {failed} failed")
    + (skipped == 0 ? "" : string.Create(CultureInfo.InvariantCulture, $", {skipped} skipped"));
Console.WriteLine();
Console.WriteLine(summary);
if (command.SummaryFile is string file)
{
    await File.WriteAllTextAsync(file, summary + "\n");
}

return failed == 0 && passed > 0 ? 0 : 1;

async Task<Execution> RunAsync(IEnumerable<ITestCase> tests, Regex? repeated)
{
    Execution run = new(Console.Out, repeated);
    executor.RunTests(tests, run, options);
    await run.Finished;
    return run;
}

static string Describe(ITestCase test) => $"{test.TestMethod.TestClass.Class.Name}.{test.TestMethod.Method.Name} {test.DisplayName}";

static bool HasTrait(ITestCase test, KeyValuePair<string, string> trait) =>
    test.Traits.TryGetValue(trait.Key, out List<string>? values) && values.Contains(trait.Value, StringComparer.Ordinal);

using System.Globalization;
using System.Reflection;
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

Execution execution = new(Console.Out);
using ITestFrameworkExecutor executor = framework.GetExecutor(assembly.GetName());
executor.RunTests(wanted.Except(excluded), execution, options);
await execution.Finished;

foreach (ITestCase test in excluded)
{
    Console.WriteLine($"  {test.DisplayName} EXCLUDED by its trait");
}

string summary = string.Create(CultureInfo.InvariantCulture, $"{execution.Passed} passed, {execution.Failed} failed")
    + (execution.Skipped == 0 ? "" : string.Create(CultureInfo.InvariantCulture, $", {execution.Skipped} skipped"));
Console.WriteLine();
Console.WriteLine(summary);
if (command.SummaryFile is string file)
{
    await File.WriteAllTextAsync(file, summary + "\n");
}

return execution.Failed == 0 && execution.Passed > 0 ? 0 : 1;

static string Describe(ITestCase test) => $"{test.TestMethod.TestClass.Class.Name}.{test.TestMethod.Method.Name} {test.DisplayName}";

static bool HasTrait(ITestCase test, KeyValuePair<string, string> trait) =>
    test.Traits.TryGetValue(trait.Key, out List<string>? values) && values.Contains(trait.Value, StringComparer.Ordinal);

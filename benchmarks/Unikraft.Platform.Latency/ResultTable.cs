using System.Globalization;
using System.Text.Json.Nodes;

namespace Unikraft.Platform.Latency;

/// <summary>Prints results for people, each row with its ratio to the floor.</summary>
internal static class ResultTable
{
    internal static void WriteHeader(TextWriter writer) =>
        writer.WriteLine($"{"measure",-16} {"unit",-5} {"n",7} {"p50",10} {"p90",10} {"p99",10} {"max",10} {"floor p50",10} {"p99",10} {"ratio p50",10} {"p99",6}  {"goals",-54}  parameters");

    internal static void WriteRow(TextWriter writer, Measurement row) => writer.WriteLine(string.Create(
        CultureInfo.InvariantCulture,
        $"{row.Name,-16} {row.Unit,-5} {row.N,7} {Number(row.P50),10} {Number(row.P90),10} {Number(row.P99),10} {Number(row.Max),10} {Number(row.FloorP50),10} {Number(row.FloorP99),10} {Ratio(row.P50, row.FloorP50),10} {Ratio(row.P99, row.FloorP99),6}  {Describe(row.Goals),-54}  {Describe(row.Params)}"));

    private static string Number(double? value) => value?.ToString(value < 10 ? "0.00" : "0.0", CultureInfo.InvariantCulture) ?? "-";

    private static string Ratio(double value, double? floor) => (value / floor)?.ToString("0.00", CultureInfo.InvariantCulture) ?? "-";

    private static string Describe(IReadOnlyList<Goal> goals) => string.Join(", ", goals.Select(goal => goal.IsMet switch
    {
        true => $"{goal.Text}: met",
        false => $"{goal.Text}: MISSED",
        null => $"{goal.Text}: open",
    }));

    private static string Describe(JsonObject parameters) => string.Join(", ", parameters.Select(pair => $"{pair.Key}={pair.Value}"));
}

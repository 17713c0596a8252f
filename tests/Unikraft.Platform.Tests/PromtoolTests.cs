using System.Diagnostics;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

/// <summary>A parser that is not ours reads the Prometheus text. It also says what it thinks of the names, which are given.</summary>
[RequiresPromtool]
public sealed class PromtoolTests
{
    [ContractFact]
    public async Task Promtool_parses_the_prometheus_text()
    {
        (int code, string errors) = await CheckAsync(MetricsExposition.ToPrometheusText(MetricsExpositionTests.Two));
        string[] opinions =
        [
            "should have \"_total\" suffix",
            "use base unit \"seconds\" instead of \"s\"",
            "metric names should not contain abbreviated units",
            "non-histogram and non-summary metrics should not have \"_count\" suffix",
        ];

        Assert.Contains(code, new[] { 0, 3 });
        Assert.All(
            errors.Split('\n', StringSplitOptions.RemoveEmptyEntries),
            line => Assert.True(opinions.Any(opinion => line.Contains(opinion, StringComparison.Ordinal)), line));

        // It does fail on what is wrong.
        Assert.Equal(1, (await CheckAsync("instance_state{instance_uuid=\"x} 1\n")).Code);
        Assert.Equal(1, (await CheckAsync(MetricsExposition.ToPrometheusText(MetricsExpositionTests.Two) + MetricsExposition.ToPrometheusText(MetricsExpositionTests.Two))).Code);
    }

    private static async Task<(int Code, string Errors)> CheckAsync(string text)
    {
        using Process process = new()
        {
            StartInfo = new ProcessStartInfo("promtool", ["check", "metrics"])
            {
                UseShellExecute = false,
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            },
        };
        process.Start();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        await process.StandardInput.WriteAsync(text);
        process.StandardInput.Close();
        await process.WaitForExitAsync();
        await output;
        return (process.ExitCode, await errors);
    }
}

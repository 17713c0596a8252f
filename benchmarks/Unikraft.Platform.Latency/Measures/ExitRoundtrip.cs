using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>Out of the guest by an MMIO write and back, as the guest sees it: a call that does nothing, in cycles of its time stamp counter.</summary>
internal sealed class ExitRoundtrip : IMeasure
{
    private const string Guest = "exits";
    private const int MemoryMb = 64;
    private const double MicrosecondsPerMillisecond = 1000;

    /// <summary>Guests run before the first sample: enough for the runtime to compile the way of an exit for good.</summary>
    private const int WarmUpRuns = 10;
    private const int WarmUpSamples = 3000;

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    public string Name => "exit.roundtrip";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int samples = context.Samples(30_000, quick: 1000);
        UnikraftPlatformBuilder builder = new();
        builder.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        for (int i = 0; i < WarmUpRuns; i++)
        {
            await SampleAsync(platform, Math.Min(samples, WarmUpSamples), cancellationToken);
        }

        (IReadOnlyList<double> subject, IReadOnlyList<double> floor) = await context.InterleaveAsync(
            (count, token) => SampleAsync(platform, count, token),
            count => ["exit-roundtrip", MeasureContext.Guest(Guest), count.ToString(CultureInfo.InvariantCulture)],
            samples,
            cancellationToken);
        yield return Measurement.Of(
            Name,
            Measurement.Microseconds,
            Percentiles.Of(subject),
            Percentiles.OfAny(floor),
            new JsonObject
            {
                ["vcpus"] = 1,
                ["memory_mb"] = MemoryMb,
                ["warm"] = "process, compiled code; the first 1000 exits of each guest are not counted",
            },
            Target.AtMostFloorTimes(Figure.P50, 1.15));
    }

    private static async Task<IReadOnlyList<double>> SampleAsync(IUnikraftPlatform platform, int count, CancellationToken cancellationToken)
    {
        Instance instance = await platform.Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Image = MeasureContext.Guest(Guest),
                MemoryMb = MemoryMb,
                Args = [count.ToString(CultureInfo.InvariantCulture)],
            },
            cancellationToken);
        await platform.Instances.WaitAsync(instance.Uuid, InstanceState.Stopped, Patience, cancellationToken);
        string output = platform.Instances.ReadLog(instance.Uuid).Text;
        await platform.Instances.DeleteAsync(instance.Uuid, cancellationToken);
        return Parse(output, count);
    }

    // tsc_khz=K, then one line for each round trip, then done.
    private static IReadOnlyList<double> Parse(string output, int count)
    {
        const string Frequency = "tsc_khz=";
        string[] lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        if (lines.Length != count + 2 || !lines[0].StartsWith(Frequency, StringComparison.Ordinal) || !string.Equals(lines[^1], "done", StringComparison.Ordinal))
        {
            throw new InvalidOperationException($"The guest '{Guest}' printed {lines.Length} lines, which is not a complete result: {lines.LastOrDefault()}");
        }

        double cyclesPerMicrosecond = double.Parse(lines[0][Frequency.Length..], CultureInfo.InvariantCulture) / MicrosecondsPerMillisecond;
        return cyclesPerMicrosecond > 0
            ? [.. lines[1..^1].Select(line => double.Parse(line, CultureInfo.InvariantCulture) / cyclesPerMicrosecond)]
            : throw new InvalidOperationException("This host does not tell the frequency of its time stamp counter.");
    }
}

using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// Booting a flat guest by a call of the whole platform: until the guest has reached main, which is what the floor does as well, and until the
/// caller knows, because the call has returned.
/// </summary>
internal sealed class BootFlat : IMeasure
{
    private const string Guest = "hello";
    private const double LimitMicroseconds = 2000;

    private static readonly int[] MemorySizes = [64, 256, 1024];
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    /// <summary>Boots before the first sample: enough for the runtime to compile everything on the way for good.</summary>
    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(2);

    public string Name => "boot.flat";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int samples = context.Samples(1000, quick: 20);
        GuestImage image = MeasureContext.Guest(Guest);
        UnikraftPlatformBuilder builder = new();
        MachineProbe probe = new(builder);
        probe.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();

        for (long start = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(start) < WarmUp;)
        {
            await BootAsync(platform, image, MemorySizes[0], probe, cancellationToken);
        }

        foreach (int memoryMb in MemorySizes)
        {
            List<double> returned = [];
            (IReadOnlyList<double> reached, IReadOnlyList<double> floor) = await context.InterleaveAsync(
                async (count, token) =>
                {
                    List<double> chunk = [];
                    for (int i = 0; i < count; i++)
                    {
                        (double toMain, double toReturn) = await BootAsync(platform, image, memoryMb, probe, token);
                        chunk.Add(toMain);
                        returned.Add(toReturn);
                    }

                    return chunk;
                },
                count => ["boot", image.Name, Text(memoryMb), Text(count)],
                samples,
                cancellationToken);
            Percentiles? floorPercentiles = Percentiles.OfAny(floor);
            Target[] targets =
                memoryMb == MemorySizes[0] ? [Target.AtMostFloorTimes(Figure.P50, 1.5), Target.Below(Figure.P50, LimitMicroseconds)] : [];
            yield return Row(Percentiles.Of(reached), floorPercentiles, memoryMb, "main reached", targets);
            yield return Row(Percentiles.Of(returned), floorPercentiles, memoryMb, "call returned");
        }
    }

    private static async Task<(double ToMain, double ToReturn)> BootAsync(
        IUnikraftPlatform platform,
        GuestImage image,
        int memoryMb,
        MachineProbe probe,
        CancellationToken cancellationToken)
    {
        CreateInstanceRequest request = new() { Image = image, MemoryMb = memoryMb, WaitTimeout = Patience };
        long start = Stopwatch.GetTimestamp();
        Instance instance = await platform.Instances.CreateAsync(request, cancellationToken);
        double toReturn = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        double toMain = Stopwatch.GetElapsedTime(start, probe.Timestamp).TotalMicroseconds;

        // No teardown runs into the next boot.
        await platform.Instances.DeleteAsync(instance.Uuid, cancellationToken);
        probe.Forget(instance.Uuid);
        await probe.ReclaimAsync();
        return (toMain, toReturn);
    }

    private Measurement Row(Percentiles subject, Percentiles? floor, int memoryMb, string until, params Target[] targets) => Measurement.Of(
        Name,
        Measurement.Microseconds,
        subject,
        floor,
        new JsonObject
        {
            ["memory_mb"] = memoryMb,
            ["vcpus"] = 1,
            ["until"] = until,
            ["warm"] = "process, compiled code, image in memory; every machine and page is new, two machines kept ready",
        },
        targets);

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}

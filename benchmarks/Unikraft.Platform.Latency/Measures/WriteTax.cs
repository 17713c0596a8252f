using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// What a branch costs the guest once it is there: its throughput in the second after against the second before, as it counts itself, and its
/// first write to a page. A guest that does nothing but write is the worst case: each page that it writes again faults once, and its branch, which
/// runs in that second too, does the same on another processor.
/// </summary>
internal sealed class WriteTax : IMeasure
{
    private const int MemoryMb = 256;
    private const int SmallArenaMb = 25;
    private const int LargeArenaMb = 248;
    private const int TimedPages = 1000;
    private const double LeastThroughput = 0.9;
    private const double FloorTimes = 1.3;

    private static readonly TimeSpan Span = TimeSpan.FromSeconds(1);

    public string Name => "write.tax";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        await FixedResidue.WarmUpAsync(hypervisor, isBusy: true, inGuest: false, cancellationToken);
        foreach (int arenaMb in (int[])[SmallArenaMb, LargeArenaMb])
        {
            (IReadOnlyList<double> after, IReadOnlyList<double> during) =
                await MeasureThroughputAsync(hypervisor, arenaMb, context.Samples(6, quick: 1), cancellationToken);
            yield return Row(after, arenaMb, "the start of the branch", Target.AtLeast(Figure.P50, LeastThroughput));
            yield return Row(during, arenaMb, "the call");
        }

        yield return await MeasureFirstWriteAsync(context, hypervisor, cancellationToken);
    }

    /// <summary>Throughput in a second over that in the second before the call: beside the branch, and with the call itself in that second.</summary>
    private static async Task<(IReadOnlyList<double> After, IReadOnlyList<double> During)> MeasureThroughputAsync(
        KvmHypervisor hypervisor,
        int arenaMb,
        int samples,
        CancellationToken cancellationToken)
    {
        string[] options = ["--busy", "--work", "--arena-mb", Text(arenaMb)];
        CounterGuest guest = await CounterGuest.StartAsync(hypervisor, MemoryMb, pages: 1, options, cancellationToken);
        await using (guest)
        {
            // In turn, each against a second of its own.
            List<double> after = [];
            List<double> during = [];
            for (int i = 0; i < 2 * samples; i++)
            {
                await RateAsync(guest, cancellationToken);
                await Task.Delay(Span, TimeProvider.System, cancellationToken);
                double before = await RateAsync(guest, cancellationToken);
                ValueTask<KvmSnapshot> capture = guest.Machine.CaptureAsync(CaptureOptions.Default, hooks: null, cancellationToken);
                if (i % 2 == 0)
                {
                    using KvmSnapshot snapshot = await capture;
                    await using CounterGuest branch = await CounterGuest.RestoreAsync(hypervisor, snapshot, cancellationToken);
                    await RateAsync(guest, cancellationToken);
                    await Task.Delay(Span, TimeProvider.System, cancellationToken);
                    after.Add(await RateAsync(guest, cancellationToken) / before);
                }
                else
                {
                    await Task.Delay(Span, TimeProvider.System, cancellationToken);
                    during.Add(await RateAsync(guest, cancellationToken) / before);
                    (await capture).Dispose();
                }

                await guest.Machine.Background.WaitAsync(cancellationToken);
            }

            return (after, during);
        }
    }

    /// <summary>Pages written in a microsecond since the last call.</summary>
    private static async Task<double> RateAsync(CounterGuest guest, CancellationToken cancellationToken)
    {
        IReadOnlyDictionary<string, double> answer = await guest.AskAsync("work", cancellationToken);
        return answer["work"] / answer["ns"] * MeasureContext.NanosecondsPerMicrosecond;
    }

    private async Task<Measurement> MeasureFirstWriteAsync(
        MeasureContext context,
        KvmHypervisor hypervisor,
        CancellationToken cancellationToken)
    {
        CounterGuest guest = await CounterGuest.StartAsync(hypervisor, MemoryMb, TimedPages, [], cancellationToken);
        await using (guest)
        {
            (IReadOnlyList<double> subject, IReadOnlyList<double> floor) = await context.InterleaveAsync(
                async (count, token) =>
                {
                    List<double> writes = [];
                    for (int i = 0; i < count; i++)
                    {
                        (await guest.Machine.CaptureAsync(token)).Dispose();
                        await guest.Machine.Background.WaitAsync(token);
                        writes.Add((await guest.AskAsync("write", token))["write_ns"] / MeasureContext.NanosecondsPerMicrosecond);
                    }

                    return writes;
                },
                count => ["write", CounterGuest.Image, Text(MemoryMb), Text(TimedPages), Text(count)],
                context.Samples(200, quick: 10),
                cancellationToken);
            return Measurement.Of(
                Name,
                Measurement.Microseconds,
                Percentiles.Of(subject),
                Percentiles.OfAny(floor),
                new JsonObject
                {
                    ["what"] = "first write to a page",
                    ["memory_mb"] = MemoryMb,
                    ["mean_of_pages"] = TimedPages,
                },
                Target.AtMostFloorTimes(Figure.P50, FloorTimes));
        }
    }

    private Measurement Row(IReadOnlyList<double> samples, int arenaMb, string from, params Target[] targets) => Measurement.Of(
        Name,
        Measurement.Ratio,
        Percentiles.Of(samples),
        floor: null,
        new JsonObject
        {
            ["what"] = "throughput over that before",
            ["second_from"] = from,
            ["memory_mb"] = MemoryMb,
            ["written_mb"] = arenaMb,
            ["least"] = Math.Round(samples.Min(), 3),
            ["guest"] = "busy",
        },
        targets);

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}

using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// The pause of a guest that dirties random pages all the time: how often the engine copies before it cuts, and whether it holds the guest to stay within
/// the budget, is its own decision.
/// </summary>
internal sealed class PauseRate : IMeasure
{
    private const int MemoryMb = 1024;

    /// <summary>The guest of the floor touches all of its memory in each round.</summary>
    private const int Rounds = 4;

    /// <summary>Up to it the pause is to be short without the guest being held; beyond it the budget is the bound.</summary>
    private const int HighestRateWithGoal = 50_000;

    private static readonly TimeSpan DefaultBudget = new PlatformOptions().SnapshotPauseBudget;
    private static readonly TimeSpan SmallBudget = TimeSpan.FromMilliseconds(2);

    private static readonly (int Rate, TimeSpan Budget)[] Cases =
        [(10_000, DefaultBudget), (50_000, DefaultBudget), (200_000, DefaultBudget), (200_000, SmallBudget)];

    public string Name => "pause.rate";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        await FixedResidue.WarmUpAsync(hypervisor, isBusy: true, inGuest: false, cancellationToken);
        foreach ((int rate, TimeSpan budget) in Cases)
        {
            string[] options = ["--random", "--busy", "--rate", Text(rate)];
            CounterGuest guest = await CounterGuest.StartAsync(hypervisor, MemoryMb, pages: 1, options, cancellationToken);
            await using (guest)
            {
                int samples = context.Samples(rate <= HighestRateWithGoal ? 60 : 20, quick: 3);
                List<double> held = [];
                await guest.Machine.PauseAsync(cancellationToken);
                (IReadOnlyList<double> pauses, IReadOnlyList<double> floor) = await context.InterleaveAsync(
                    (count, token) => SampleAsync(guest, budget, count, held, token),
                    count => ["pause-rate", CounterGuest.Image, Text(MemoryMb), Text(rate), Text(count)],
                    samples,
                    cancellationToken,
                    rounds: Rounds);
                yield return Measurement.Of(
                    Name,
                    Measurement.Microseconds,
                    Percentiles.Of(pauses),
                    Percentiles.OfAny(floor),
                    new JsonObject
                    {
                        ["memory_mb"] = MemoryMb,
                        ["pages_per_second"] = rate,
                        ["budget_ms"] = budget.TotalMilliseconds,
                        ["held_p50"] = Percentiles.Of(held).P50,
                        ["guest"] = "busy",
                    },
                    rate <= HighestRateWithGoal
                        ? [Target.AtMost(Figure.P50, 500), Target.AtMost(Figure.P99, 1500)]
                        : [Target.AtMost(Figure.P99, budget.TotalMicroseconds)]);
            }
        }
    }

    /// <summary>Takes snapshots of a guest that is paused between the rounds, so as to leave the processors to the floor.</summary>
    private static async Task<IReadOnlyList<double>> SampleAsync(
        CounterGuest guest,
        TimeSpan budget,
        int count,
        List<double> held,
        CancellationToken cancellationToken)
    {
        guest.Machine.Resume();
        List<double> pauses = [];
        for (int i = 0; i < count; i++)
        {
            using KvmSnapshot snapshot =
                await guest.Machine.CaptureAsync(new CaptureOptions { PauseBudget = budget }, hooks: null, cancellationToken);
            pauses.Add(snapshot.Pause.TotalMicroseconds);
            held.Add(snapshot.Throttled.TotalMicroseconds);
            await guest.Machine.Background.WaitAsync(cancellationToken);
        }

        await guest.Machine.PauseAsync(cancellationToken);
        return pauses;
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}

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
        await FixedResidue.WarmUpAsync(hypervisor, cancellationToken);
        foreach ((int rate, TimeSpan budget) in Cases)
        {
            string[] options = ["--random", "--busy", "--rate", rate.ToString(CultureInfo.InvariantCulture)];
            CounterGuest guest = await CounterGuest.StartAsync(hypervisor, MemoryMb, pages: 1, options, cancellationToken);
            await using (guest)
            {
                int samples = context.Samples(rate <= HighestRateWithGoal ? 60 : 20, quick: 3);
                List<double> pauses = [];
                List<double> held = [];
                for (int i = 0; i < samples; i++)
                {
                    using KvmSnapshot snapshot =
                        await guest.Machine.CaptureAsync(new CaptureOptions { PauseBudget = budget }, hooks: null, cancellationToken);
                    pauses.Add(snapshot.Pause.TotalMicroseconds);
                    held.Add(snapshot.Throttled.TotalMicroseconds);
                    await guest.Machine.Background.WaitAsync(cancellationToken);
                }

                yield return Measurement.Of(
                    Name,
                    Measurement.Microseconds,
                    Percentiles.Of(pauses),
                    floor: null,
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
}

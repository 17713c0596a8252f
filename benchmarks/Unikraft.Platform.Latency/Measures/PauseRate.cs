using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>The pause of a guest that dirties random pages all the time: how often the engine copies before it cuts is its own decision.</summary>
internal sealed class PauseRate : IMeasure
{
    private const int MemoryMb = 1024;

    /// <summary>Beyond it a bound is documented instead.</summary>
    private const int HighestRateWithGoal = 50_000;

    private static readonly int[] Rates = [10_000, 50_000, 200_000];

    public string Name => "pause.rate";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        await FixedResidue.WarmUpAsync(hypervisor, cancellationToken);
        foreach (int rate in Rates)
        {
            string[] options = ["--random", "--busy", "--rate", rate.ToString(CultureInfo.InvariantCulture)];
            CounterGuest guest = await CounterGuest.StartAsync(hypervisor, MemoryMb, pages: 1, options, cancellationToken);
            await using (guest)
            {
                int samples = context.Samples(rate <= HighestRateWithGoal ? 60 : 20, quick: 3);
                List<double> pauses = [];
                for (int i = 0; i < samples; i++)
                {
                    pauses.Add(await guest.MeasurePauseAsync(residue: null, inGuest: false, cancellationToken));
                }

                yield return Measurement.Of(
                    Name,
                    Measurement.Microseconds,
                    Percentiles.Of(pauses),
                    floor: null,
                    new JsonObject { ["memory_mb"] = MemoryMb, ["pages_per_second"] = rate, ["guest"] = "busy" },
                    rate <= HighestRateWithGoal ? [Target.AtMost(Figure.P50, 500), Target.AtMost(Figure.P99, 1500)] : []);
            }
        }
    }
}

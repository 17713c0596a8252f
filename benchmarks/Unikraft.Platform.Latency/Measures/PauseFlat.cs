using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>The pause of a large guest over that of a small one with as many dirty pages: what the size of the memory costs.</summary>
internal sealed class PauseFlat : IMeasure
{
    private const int SmallMb = 128;
    private const int LargeMb = 1024;
    private const int Pages = 328;
    private const double Limit = 1.5;

    public string Name => "pause.flat";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int samples = context.Samples(200, quick: 4);
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        foreach (bool isBusy in (bool[])[false, true])
        {
            await FixedResidue.WarmUpAsync(hypervisor, isBusy, inGuest: false, cancellationToken);
            (Percentiles small, Percentiles? smallFloor) =
                await FixedResidue.MeasureAsync(context, hypervisor, SmallMb, Pages, isBusy, inGuest: false, samples, cancellationToken);
            (Percentiles large, Percentiles? largeFloor) =
                await FixedResidue.MeasureAsync(context, hypervisor, LargeMb, Pages, isBusy, inGuest: false, samples, cancellationToken);
            yield return Measurement.Of(
                Name,
                Measurement.Ratio,
                Ratio(large, small),
                largeFloor is null || smallFloor is null ? null : Ratio(largeFloor, smallFloor),
                new JsonObject
                {
                    ["memory_mb"] = LargeMb,
                    ["over_memory_mb"] = SmallMb,
                    ["dirty_pages"] = Pages,
                    ["guest"] = isBusy ? "busy" : "idle",
                },
                Target.AtMost(Figure.P50, Limit));
        }
    }

    private static Percentiles Ratio(Percentiles large, Percentiles small) =>
        new(Math.Min(large.Count, small.Count), large.P50 / small.P50, large.P90 / small.P90, large.P99 / small.P99, large.Max / small.Max);
}

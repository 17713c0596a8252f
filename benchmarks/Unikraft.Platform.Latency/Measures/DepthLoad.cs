using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// Loading a checkpoint at a depth of 64 over loading one at depth 1: each was taken of an instance that was loaded from the one before and dirtied 1 % of
/// its memory at random places. Once with the two loaded in turn, and once with the last eight depths and the first. How much lies scattered changes with each depth until it is folded, so that there is also a row for the slowest of the last depths.
/// </summary>
internal sealed class DepthLoad : IMeasure
{
    private const int MemoryMb = 64;
    private const int Depth = 64;
    private const int LastDepths = 8;
    private const int WarmUp = 200;
    private const double Share = 0.01;
    private const double Limit = 1.3;

    /// <summary>A machine that was taken is replaced within this.</summary>
    private static readonly TimeSpan Refilling = TimeSpan.FromMilliseconds(5);

    public string Name => "depth.load";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        List<IMachineSnapshot> lineage = [];
        try
        {
            await BuildAsync(hypervisor, lineage, cancellationToken);
            for (int i = 0; i < (context.IsQuick ? 1 : WarmUp); i++)
            {
                await LoadAsync(hypervisor, lineage[i % Depth], cancellationToken);
            }

            int samples = context.Samples(200, quick: 5);
            List<double> again = [];
            List<double> deepAgain = [];
            for (int i = 0; i < samples; i++)
            {
                again.Add(await LoadAsync(hypervisor, lineage[0], cancellationToken));
                deepAgain.Add(await LoadAsync(hypervisor, lineage[^1], cancellationToken));
            }

            yield return Row(
                Percentiles.Of(deepAgain),
                Percentiles.Of(again),
                Depth,
                "depth 64, loaded again and again",
                Target.AtMost(Figure.P50, Limit));
            List<double> shallow = [];
            List<double>[] deep = [.. Enumerable.Range(0, LastDepths).Select(_ => new List<double>())];
            for (int i = 0; i < samples; i++)
            {
                shallow.Add(await LoadAsync(hypervisor, lineage[0], cancellationToken));
                for (int last = 0; last < LastDepths; last++)
                {
                    deep[last].Add(await LoadAsync(hypervisor, lineage[Depth - LastDepths + last], cancellationToken));
                }
            }

            Percentiles first = Percentiles.Of(shallow);
            Percentiles[] lasts = [.. deep.Select(Percentiles.Of)];
            Percentiles slowest = lasts.MaxBy(static percentiles => percentiles.P50)!;
            yield return Row(lasts[^1], first, Depth, "depth 64, nine loaded in turn", Target.AtMost(Figure.P50, Limit));
            yield return Row(slowest, first, Depth - LastDepths + 1 + Array.IndexOf(lasts, slowest), "the slowest of the last 8 depths, nine loaded in turn");
        }
        finally
        {
            lineage.ForEach(static snapshot => snapshot.Dispose());
        }
    }

    private static async Task BuildAsync(KvmHypervisor hypervisor, List<IMachineSnapshot> lineage, CancellationToken cancellationToken)
    {
        int pages = FixedResidue.PagesOf(MemoryMb, Share);
        CounterGuest guest = await CounterGuest.BootAsync(hypervisor, MemoryMb, pages, ["--random"], cancellationToken);
        while (true)
        {
            await using (guest)
            {
                lineage.Add(await guest.Machine.CaptureAsync(cancellationToken));
                await guest.Machine.Background.WaitAsync(cancellationToken);
            }

            if (lineage.Count == Depth)
            {
                return;
            }

            guest = await CounterGuest.RestoreAsync(hypervisor, lineage[^1], cancellationToken);
            await guest.TickAsync(cancellationToken);
        }
    }

    private static async Task<double> LoadAsync(KvmHypervisor hypervisor, IMachineSnapshot snapshot, CancellationToken cancellationToken)
    {
        await Task.Delay(Refilling, TimeProvider.System, cancellationToken);
        return await Fork.ForkAsync(hypervisor, snapshot, cancellationToken);
    }

    private Measurement Row(Percentiles deep, Percentiles shallow, int depth, string what, params Target[] targets) => Measurement.Of(
        Name,
        Measurement.Ratio,
        new Percentiles(deep.Count, deep.P50 / shallow.P50, deep.P90 / shallow.P90, deep.P99 / shallow.P99, deep.Max / shallow.Max),
        floor: null,
        new JsonObject
        {
            ["memory_mb"] = MemoryMb,
            ["depth"] = depth,
            ["what"] = what,
            ["dirty_share"] = Share,
            ["shallow_p50"] = Math.Round(shallow.P50, 1),
            ["deep_p50"] = Math.Round(deep.P50, 1),
        },
        targets);
}

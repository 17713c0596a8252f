using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// Loading a checkpoint at a depth of 64 over loading one at depth 1: each was taken of an instance that was loaded from the one before and dirtied 1 % of
/// its memory at random places.
/// </summary>
internal sealed class DepthLoad : IMeasure
{
    private const int MemoryMb = 64;
    private const int Depth = 64;
    private const int WarmUp = 200;
    private const double Share = 0.01;
    private const double Limit = 1.3;

    /// <summary>A machine that was taken is replaced within this.</summary>
    private static readonly TimeSpan Refilling = TimeSpan.FromMilliseconds(5);

    public string Name => "depth.load";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        int pages = FixedResidue.PagesOf(MemoryMb, Share);
        List<IMachineSnapshot> lineage = [];
        try
        {
            CounterGuest guest = await CounterGuest.StartAsync(hypervisor, MemoryMb, pages, ["--random"], cancellationToken);
            while (lineage.Count < Depth)
            {
                await using (guest)
                {
                    await guest.TickAsync(cancellationToken);
                    lineage.Add(await guest.Machine.CaptureAsync(cancellationToken));
                    await guest.Machine.Folding.WaitAsync(cancellationToken);
                }

                guest = await CounterGuest.RestoreAsync(hypervisor, lineage[^1], cancellationToken);
            }

            await guest.DisposeAsync();
            List<double> shallow = [];
            List<double> deep = [];
            int samples = context.Samples(500, quick: 10);
            for (int i = -WarmUp; i < samples; i++)
            {
                double first = await LoadAsync(hypervisor, lineage[0], cancellationToken);
                double last = await LoadAsync(hypervisor, lineage[^1], cancellationToken);
                if (i >= 0)
                {
                    shallow.Add(first);
                    deep.Add(last);
                }
            }

            yield return Row(Percentiles.Of(deep), Percentiles.Of(shallow), lineage[^1].Depth);
        }
        finally
        {
            lineage.ForEach(static snapshot => snapshot.Dispose());
        }
    }

    private static async Task<double> LoadAsync(KvmHypervisor hypervisor, IMachineSnapshot snapshot, CancellationToken cancellationToken)
    {
        await Task.Delay(Refilling, TimeProvider.System, cancellationToken);
        return await Fork.ForkAsync(hypervisor, snapshot, cancellationToken);
    }

    private Measurement Row(Percentiles deep, Percentiles shallow, int layers) => Measurement.Of(
        Name,
        Measurement.Ratio,
        new Percentiles(deep.Count, deep.P50 / shallow.P50, deep.P90 / shallow.P90, deep.P99 / shallow.P99, deep.Max / shallow.Max),
        floor: null,
        new JsonObject
        {
            ["memory_mb"] = MemoryMb,
            ["depth"] = Depth,
            ["layers"] = layers,
            ["dirty_share"] = Share,
            ["depth_1_p50"] = Math.Round(shallow.P50, 1),
            ["depth_64_p50"] = Math.Round(deep.P50, 1),
        },
        Target.AtMost(Figure.P50, Limit));
}

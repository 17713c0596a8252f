using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>How much a checkpoint stores, of an instance that dirtied a known number of pages since the last one, and of one that did nothing.</summary>
internal sealed class CheckpointBytes : IMeasure
{
    private const int MemoryMb = 256;
    private const int PageBytes = 4096;
    private const double Share = 0.01;
    private const double Factor = 1.1;
    private const int Surplus = 64 << 10;
    private const int Unchanged = 16 << 10;

    public string Name => "checkpoint.bytes";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int pages = FixedResidue.PagesOf(MemoryMb, Share);
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        CounterGuest guest = await CounterGuest.StartAsync(hypervisor, MemoryMb, pages, ["--random"], cancellationToken);
        await using (guest)
        {
            List<double> dirty = [];
            List<double> unchanged = [];
            int samples = context.Samples(50, quick: 3);
            for (int i = 0; i < samples; i++)
            {
                await guest.TickAsync(cancellationToken);
                dirty.Add(await CaptureAsync(guest, cancellationToken));
                unchanged.Add(await CaptureAsync(guest, cancellationToken));
            }

            yield return Row(dirty, pages, Target.AtMost(Figure.Max, Factor * pages * PageBytes + Surplus));
            yield return Row(unchanged, 0, Target.Below(Figure.Max, Unchanged));
        }
    }

    private static async Task<double> CaptureAsync(CounterGuest guest, CancellationToken cancellationToken)
    {
        using IMachineSnapshot snapshot = await guest.Machine.CaptureAsync(cancellationToken);
        await guest.Machine.Background.WaitAsync(cancellationToken);
        return snapshot.StoredBytes;
    }

    private Measurement Row(IReadOnlyList<double> samples, int pages, Target target)
    {
        Percentiles stored = Percentiles.Of(samples);
        return Measurement.Of(
            Name,
            Measurement.Bytes,
            stored,
            floor: null,
            new JsonObject
            {
                ["memory_mb"] = MemoryMb,
                ["dirtied_bytes"] = pages * PageBytes,
                ["stored_over_dirtied"] = pages == 0 ? null : Math.Round(stored.P50 / (pages * PageBytes), 3),
            },
            target);
    }
}

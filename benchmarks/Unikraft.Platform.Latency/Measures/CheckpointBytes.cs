using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// How much a checkpoint stores, of an instance that dirtied a known number of pages since the last one, and of one that did nothing: of memory, and by
/// how much a data directory grows, with state, indexes, checksums, the manifest and the journal.
/// </summary>
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

            yield return Row("memory", dirty, pages);
            yield return Row("memory", unchanged, pages: 0);
        }

        int checkpoints = context.Samples(20, quick: 3);
        yield return Row("data directory", [await MeasureGrowthAsync(pages, checkpoints, cancellationToken)], pages, checkpoints);
        yield return Row("data directory", [await MeasureGrowthAsync(pages: 0, checkpoints, cancellationToken)], pages: 0, checkpoints);
    }

    /// <summary>What each checkpoint adds to a data directory, in bytes.</summary>
    /// <returns>The mean, of a directory with so many more checkpoints than another one.</returns>
    private static async Task<double> MeasureGrowthAsync(int pages, int checkpoints, CancellationToken cancellationToken)
    {
        long few = await MeasureAsync(1);
        return (await MeasureAsync(1 + checkpoints) - few) / (double)checkpoints;

        async Task<long> MeasureAsync(int count)
        {
            using StoreFolder folder = new();
            await using (IUnikraftPlatform platform = folder.Open())
            {
                Instance source = await StoreFolder.StartAsync(platform, MemoryMb, Math.Max(pages, 1), cancellationToken);
                for (int i = 0; i < count; i++)
                {
                    if (pages > 0)
                    {
                        await StoreFolder.TickAsync(platform, source, cancellationToken);
                    }

                    await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
                }
            }

            // Closed, so that all that is made in the background is there.
            return new DirectoryInfo(folder.PathOf("data")).EnumerateFiles("*", SearchOption.AllDirectories).Sum(static file => file.Length);
        }
    }

    private static async Task<double> CaptureAsync(CounterGuest guest, CancellationToken cancellationToken)
    {
        using IMachineSnapshot snapshot = await guest.Machine.CaptureAsync(cancellationToken);
        await guest.Machine.Background.WaitAsync(cancellationToken);
        return snapshot.StoredBytes;
    }

    private Measurement Row(string where, IReadOnlyList<double> samples, int pages, int meanOf = 1)
    {
        Percentiles stored = Percentiles.Of(samples);
        return Measurement.Of(
            Name,
            Measurement.Bytes,
            stored,
            floor: null,
            new JsonObject
            {
                ["in"] = where,
                ["memory_mb"] = MemoryMb,
                ["dirtied_bytes"] = pages * PageBytes,
                ["mean_of"] = meanOf,
                ["stored_over_dirtied"] = pages == 0 ? null : Math.Round(stored.P50 / (pages * PageBytes), 3),
            },
            pages == 0 ? Target.Below(Figure.Max, Unchanged) : Target.AtMost(Figure.Max, Factor * pages * PageBytes + Surplus));
    }
}

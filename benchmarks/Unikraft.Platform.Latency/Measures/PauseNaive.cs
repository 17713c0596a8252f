using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// What a snapshot would cost that stops the guest and copies all of its memory, into memory that is present already. The pauses of real snapshots
/// of the same machine, with 1 % dirty, are taken in turn and stand in the parameters.
/// </summary>
internal sealed class PauseNaive : IMeasure
{
    private const double Share = 0.01;

    /// <summary>How many times as long as a snapshot's the pause should be.</summary>
    private const double Factor = 20;
    private const int LargeMemoryMb = 1024;

    public string Name => "pause.naive";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int samples = context.Samples(40, quick: 5);
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        await FixedResidue.WarmUpAsync(hypervisor, cancellationToken);
        foreach (int memoryMb in FixedResidue.MemorySizes)
        {
            int pages = FixedResidue.PagesOf(memoryMb, Share);
            CounterGuest guest = await CounterGuest.StartAsync(hypervisor, memoryMb, pages, ["--random"], cancellationToken);
            await using (guest)
            {
                List<double> naive = [];
                List<double> snapshots = [];
                using StagingBuffer copy = new(guest.Machine.Memory.Pages);
                for (int i = 0; i < samples; i++)
                {
                    snapshots.AddRange(await FixedResidue.SampleAsync(guest, inGuest: false, 1, cancellationToken));
                    naive.Add(await StopAndCopyAsync(guest.Machine, copy, cancellationToken));
                }

                Percentiles ours = Percentiles.Of(snapshots);
                Target[] targets = memoryMb == LargeMemoryMb ? [Target.AtLeast(Figure.P50, Math.Round(Factor * ours.P50, 1))] : [];
                yield return Measurement.Of(
                    Name,
                    Measurement.Microseconds,
                    Percentiles.Of(naive),
                    floor: null,
                    new JsonObject
                    {
                        ["memory_mb"] = memoryMb,
                        ["dirty_pages"] = pages,
                        ["guest"] = "idle",
                        ["snapshot_p50"] = ours.P50,
                        ["snapshot_p99"] = ours.P99,
                        ["snapshot_share_p50"] = Math.Round(ours.P50 / Percentiles.Of(naive).P50, 4),
                    },
                    targets);
            }
        }
    }

    private static async Task<double> StopAndCopyAsync(KvmMachine machine, StagingBuffer copy, CancellationToken cancellationToken)
    {
        const int Step = 1 << 14;
        long start = Stopwatch.GetTimestamp();
        await machine.PauseAsync(cancellationToken);
        for (int page = 0; page < machine.Memory.Pages; page += Step)
        {
            int pages = Math.Min(Step, machine.Memory.Pages - page);
            machine.Memory.PageRun(page, pages).CopyTo(copy.Slice(page, pages));
        }

        machine.Resume();
        return Stopwatch.GetElapsedTime(start).TotalMicroseconds;
    }
}

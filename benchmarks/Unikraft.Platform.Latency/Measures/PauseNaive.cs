using System.Globalization;
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

    /// <summary>The guest of the floor touches all of its memory in each round.</summary>
    private const int Rounds = 4;

    public string Name => "pause.naive";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int samples = context.Samples(40, quick: 5);
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        foreach (bool isBusy in (bool[])[false, true])
        {
            await FixedResidue.WarmUpAsync(hypervisor, isBusy, inGuest: false, cancellationToken);
            foreach (int memoryMb in FixedResidue.MemorySizes)
            {
                yield return await MeasureAsync(context, hypervisor, memoryMb, isBusy, samples, cancellationToken);
            }
        }
    }

    private async Task<Measurement> MeasureAsync(
        MeasureContext context,
        KvmHypervisor hypervisor,
        int memoryMb,
        bool isBusy,
        int samples,
        CancellationToken cancellationToken)
    {
        int pages = FixedResidue.PagesOf(memoryMb, Share);
        string[] options = ["--random", .. isBusy ? (string[])["--busy"] : []];
        await using CounterGuest guest = await CounterGuest.StartAsync(hypervisor, memoryMb, pages, options, cancellationToken);
        List<double> snapshots = [];
        using StagingBuffer copy = new(guest.Machine.Memory.Pages);
        await guest.Machine.PauseAsync(cancellationToken);
        (IReadOnlyList<double> naive, IReadOnlyList<double> floor) = await context.InterleaveAsync(
            SampleAsync,
            count => ["stop-and-copy", CounterGuest.Image, Text(memoryMb), Text(count), .. isBusy ? (string[])["busy"] : []],
            samples,
            cancellationToken,
            rounds: Rounds);
        Percentiles ours = Percentiles.Of(snapshots);
        Target[] targets = memoryMb == LargeMemoryMb ? [Target.AtLeast(Figure.P50, Math.Round(Factor * ours.P50, 1))] : [];
        return Measurement.Of(
            Name,
            Measurement.Microseconds,
            Percentiles.Of(naive),
            Percentiles.OfAny(floor),
            new JsonObject
            {
                ["memory_mb"] = memoryMb,
                ["dirty_pages"] = pages,
                ["guest"] = isBusy ? "busy" : "idle",
                ["snapshot_p50"] = ours.P50,
                ["snapshot_p99"] = ours.P99,
                ["snapshot_share_p50"] = Math.Round(ours.P50 / Percentiles.Of(naive).P50, 4),
            },
            targets);

        async Task<IReadOnlyList<double>> SampleAsync(int count, CancellationToken token)
        {
            guest.Machine.Resume();
            List<double> pauses = [];
            for (int i = 0; i < count; i++)
            {
                snapshots.AddRange(await FixedResidue.SampleAsync(guest, inGuest: false, 1, token));
                pauses.Add(await StopAndCopyAsync(guest.Machine, copy, token));
            }

            await guest.Machine.PauseAsync(token);
            return pauses;
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

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}

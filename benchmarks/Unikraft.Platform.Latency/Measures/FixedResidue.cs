using System.Globalization;
using System.Runtime;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>Pauses of snapshots of a guest that dirtied a known number of pages since the last round of copying, and those of the floor.</summary>
internal static class FixedResidue
{
    private const int PagesPerMb = 256;
    private const int LargeMemoryMb = 1024;
    private const double LargeResidue = 0.1;

    /// <summary>The guest of the floor touches all of its memory in each round, which takes seconds when that is large.</summary>
    private const int RoundsOfLarge = 4;
    private const int Rounds = 10;
    private const int WarmUpMemoryMb = 64;
    private const int WarmUpPages = 64;
    private const int WarmUpSnapshots = 50;
    private const int WarmUpRounds = 20;

    /// <summary>Fewer methods than these take no vCPU's processor for long.</summary>
    private const int FewMethods = 5;

    /// <summary>The runtime compiles methods again when none was new for a tenth of a second.</summary>
    private static readonly TimeSpan CompilerDelay = TimeSpan.FromMilliseconds(250);

    /// <summary>The sizes of memory that are measured.</summary>
    internal static readonly int[] MemorySizes = [128, 256, 1024];

    /// <summary>The shares of it that are dirty in the cut.</summary>
    internal static readonly double[] Shares = [0.001, 0.01, LargeResidue];

    /// <summary>The number of pages in a share of a guest's memory.</summary>
    internal static int PagesOf(int memoryMb, double share) => (int)(memoryMb * PagesPerMb * share);

    /// <summary>Takes snapshots until the runtime has compiled everything on the way for good: meanwhile it needs a processor, for milliseconds at a time.</summary>
    internal static async Task WarmUpAsync(KvmHypervisor hypervisor, bool isBusy, bool inGuest, CancellationToken cancellationToken)
    {
        await using CounterGuest guest = await StartAsync(hypervisor, WarmUpMemoryMb, WarmUpPages, isBusy, inGuest, cancellationToken);
        long compiled = 0;
        for (int round = 0; round < WarmUpRounds; round++)
        {
            await SampleAsync(guest, inGuest, WarmUpSnapshots, cancellationToken);
            await Task.Delay(CompilerDelay, TimeProvider.System, cancellationToken);
            long before = compiled;
            compiled = JitInfo.GetCompiledMethodCount();
            if (compiled - before < FewMethods)
            {
                break;
            }
        }
    }

    /// <summary>Measures one size of guest and residue.</summary>
    /// <param name="context">What to measure with.</param>
    /// <param name="hypervisor">Where.</param>
    /// <param name="memoryMb">The size of the guest.</param>
    /// <param name="pages">The number of dirty pages.</param>
    /// <param name="isBusy">Whether the guest spins on its vCPU; otherwise it sleeps.</param>
    /// <param name="inGuest">
    /// Whether the pause is the one that the guest sees. A guest that sleeps does not see it, so that a second vCPU watches.
    /// </param>
    /// <param name="samples">The number of samples.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<(Percentiles Subject, Percentiles? Floor)> MeasureAsync(
        MeasureContext context,
        KvmHypervisor hypervisor,
        int memoryMb,
        int pages,
        bool isBusy,
        bool inGuest,
        int samples,
        CancellationToken cancellationToken)
    {
        CounterGuest guest = await StartAsync(hypervisor, memoryMb, pages, isBusy, inGuest, cancellationToken);
        await using (guest)
        {
            await SampleAsync(guest, inGuest, 2, cancellationToken);

            // A guest that spins would take a processor from the floor.
            await guest.Machine.PauseAsync(cancellationToken);
            (IReadOnlyList<double> subject, IReadOnlyList<double> floor) = await context.InterleaveAsync(
                async (count, token) =>
                {
                    guest.Machine.Resume();
                    IReadOnlyList<double> pauses = await SampleAsync(guest, inGuest, count, token);
                    await guest.Machine.PauseAsync(token);
                    return pauses;
                },
                count => [inGuest ? "pause-guest" : "pause", CounterGuest.Image, Text(memoryMb), Text(pages), Text(count), .. isBusy ? (string[])["busy"] : []],
                samples,
                cancellationToken,
                rounds: memoryMb < LargeMemoryMb ? Rounds : RoundsOfLarge);
            return (Percentiles.Of(subject), Percentiles.OfAny(floor));
        }
    }

    /// <summary>Measures all sizes of guest and residue, busy and idle.</summary>
    /// <param name="name">The name of the measure.</param>
    /// <param name="context">What to measure with.</param>
    /// <param name="inGuest">Whether the pause is the one that the guest sees.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async IAsyncEnumerable<Measurement> MeasureAllAsync(
        string name,
        MeasureContext context,
        bool inGuest,
        [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        foreach (bool isBusy in (bool[])[false, true])
        {
            await WarmUpAsync(hypervisor, isBusy, inGuest, cancellationToken);
            foreach (int memoryMb in MemorySizes)
            {
                foreach (double share in Shares)
                {
                    int pages = PagesOf(memoryMb, share);
                    int samples = context.Samples(SamplesOf(pages), quick: 4);
                    (Percentiles subject, Percentiles? floor) =
                        await MeasureAsync(context, hypervisor, memoryMb, pages, isBusy, inGuest, samples, cancellationToken);
                    yield return Measurement.Of(
                        name,
                        Measurement.Microseconds,
                        subject,
                        floor,
                        new JsonObject
                        {
                            ["memory_mb"] = memoryMb,
                            ["dirty_pages"] = pages,
                            ["dirty_share"] = share,
                            ["guest"] = isBusy ? "busy" : "idle",
                            ["vcpus"] = inGuest && !isBusy ? 2 : 1,
                        },
                        TargetsOf(memoryMb, share));
                }
            }
        }
    }

    /// <summary>Takes snapshots, each when the guest has dirtied its pages since the last round.</summary>
    /// <param name="guest">The guest.</param>
    /// <param name="inGuest">Whether the pause is the one that the guest sees.</param>
    /// <param name="count">How many.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<IReadOnlyList<double>> SampleAsync(
        CounterGuest guest,
        bool inGuest,
        int count,
        CancellationToken cancellationToken)
    {
        List<double> pauses = [];
        for (int i = 0; i < count; i++)
        {
            pauses.Add(await guest.MeasurePauseAsync(inGuest, cancellationToken));
        }

        return pauses;
    }

    private static Task<CounterGuest> StartAsync(
        KvmHypervisor hypervisor,
        int memoryMb,
        int pages,
        bool isBusy,
        bool inGuest,
        CancellationToken cancellationToken)
    {
        bool hasWatcher = inGuest && !isBusy;
        string[] options = ["--random", .. isBusy ? (string[])["--busy"] : [], .. hasWatcher ? (string[])["--watch"] : []];
        return CounterGuest.StartAsync(hypervisor, memoryMb, pages, options, cancellationToken, vcpus: hasWatcher ? 2 : 1);
    }

    /// <summary>A p99 needs many samples; those with many pages take long, and their largest ones differ little.</summary>
    private static int SamplesOf(int pages) => pages switch
    {
        < 1000 => 200,
        < 5000 => 60,
        < 10_000 => 40,
        _ => 12,
    };

    private static Target[] TargetsOf(int memoryMb, double share)
    {
        Target[] targets = [Target.AtMostFloorTimes(Figure.P50, 1.3), Target.AtMostFloorTimes(Figure.P99, 1.8)];
        return memoryMb == 256 && share < LargeResidue && share > Shares[0]
            ? [.. targets, Target.AtMost(Figure.P50, 600), Target.AtMost(Figure.P99, 1300)]
            : targets;
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}

using System.Globalization;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>Pauses of snapshots of a guest that dirtied a known number of pages since the last round of copying, and those of the floor.</summary>
internal static class FixedResidue
{
    private const int PagesPerMb = 256;
    private const int WarmUpMemoryMb = 64;
    private const int WarmUpPages = 64;
    private const int WarmUpSnapshots = 100;

    /// <summary>The number of pages in a share of a guest's memory.</summary>
    internal static int PagesOf(int memoryMb, double share) => (int)(memoryMb * PagesPerMb * share);

    /// <summary>Enough snapshots for the runtime to compile everything on the way for good.</summary>
    internal static async Task WarmUpAsync(KvmHypervisor hypervisor, CancellationToken cancellationToken)
    {
        CounterGuest guest = await CounterGuest.StartAsync(hypervisor, WarmUpMemoryMb, WarmUpPages, [], cancellationToken);
        await using (guest)
        {
            await SampleAsync(guest, WarmUpSnapshots, cancellationToken);
        }
    }

    /// <summary>Measures one size of guest and residue.</summary>
    /// <param name="context">What to measure with.</param>
    /// <param name="hypervisor">Where.</param>
    /// <param name="memoryMb">The size of the guest.</param>
    /// <param name="pages">The number of dirty pages.</param>
    /// <param name="isBusy">Whether the guest spins on its vCPU; otherwise it sleeps.</param>
    /// <param name="samples">The number of samples in a round.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<(Percentiles Subject, Percentiles? Floor)> MeasureAsync(
        MeasureContext context,
        KvmHypervisor hypervisor,
        int memoryMb,
        int pages,
        bool isBusy,
        int samples,
        CancellationToken cancellationToken)
    {
        CounterGuest guest = await CounterGuest.StartAsync(hypervisor, memoryMb, pages, isBusy ? ["--busy"] : [], cancellationToken);
        await using (guest)
        {
            await SampleAsync(guest, 2, cancellationToken);

            // A guest that spins would take a processor from the floor.
            await guest.Machine.PauseAsync(cancellationToken);
            (IReadOnlyList<double> subject, IReadOnlyList<double> floor) = await context.InterleaveAsync(
                async (count, token) =>
                {
                    guest.Machine.Resume();
                    IReadOnlyList<double> pauses = await SampleAsync(guest, count, token);
                    await guest.Machine.PauseAsync(token);
                    return pauses;
                },
                count => ["pause", CounterGuest.Image, Text(memoryMb), Text(pages), Text(count), .. isBusy ? (string[])["busy"] : []],
                samples,
                cancellationToken);
            return (Percentiles.Of(subject), floor.Count == 0 ? null : Percentiles.Of(floor));
        }
    }

    /// <summary>Takes snapshots, each when the guest has dirtied its pages since the last round.</summary>
    internal static async Task<IReadOnlyList<double>> SampleAsync(CounterGuest guest, int count, CancellationToken cancellationToken)
    {
        List<double> pauses = [];
        for (int i = 0; i < count; i++)
        {
            pauses.Add(await guest.MeasurePauseAsync(() => guest.TickAsync(cancellationToken), cancellationToken));
        }

        return pauses;
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}

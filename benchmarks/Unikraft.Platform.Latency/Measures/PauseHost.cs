using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>How long a snapshot keeps a guest standing still, from the kick until the vCPU goes on, with a known number of dirty pages.</summary>
internal sealed class PauseHost : IMeasure
{
    private const double LargeResidue = 0.1;

    private static readonly int[] MemorySizes = [128, 256, 1024];
    private static readonly double[] Shares = [0.001, 0.01, LargeResidue];

    public string Name => "pause.host";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        await FixedResidue.WarmUpAsync(hypervisor, cancellationToken);
        foreach (bool isBusy in (bool[])[false, true])
        {
            foreach (int memoryMb in MemorySizes)
            {
                foreach (double share in Shares)
                {
                    int pages = FixedResidue.PagesOf(memoryMb, share);
                    int samples = context.IsQuick ? 3 : share < LargeResidue ? 20 : 10;
                    (Percentiles subject, Percentiles? floor) =
                        await FixedResidue.MeasureAsync(context, hypervisor, memoryMb, pages, isBusy, samples, cancellationToken);
                    yield return Measurement.Of(Name, Measurement.Microseconds, subject, floor, new JsonObject
                    {
                        ["memory_mb"] = memoryMb,
                        ["dirty_pages"] = pages,
                        ["dirty_share"] = share,
                        ["guest"] = isBusy ? "busy" : "idle",
                        ["vcpus"] = 1,
                    });
                }
            }
        }
    }
}

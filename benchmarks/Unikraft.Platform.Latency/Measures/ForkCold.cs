using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// A clone from a checkpoint without anything prepared: from the call until the clone has run and left the guest for the first time. The checkpoint is
/// of a sleeping guest, which console input wakes.
/// </summary>
internal sealed class ForkCold : IMeasure
{
    private const int MemoryMb = 64;
    private const int WarmUp = 200;

    public string Name => "fork.cold";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int samples = context.IsQuick ? 10 : 1000;
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        CounterGuest source = await CounterGuest.StartAsync(hypervisor, MemoryMb, pages: 10, [], cancellationToken);
        await using (source)
        {
            using IMachineSnapshot checkpoint = await source.Machine.CaptureAsync(cancellationToken);
            List<double> elapsed = [];
            for (int i = -WarmUp; i < samples; i++)
            {
                double microseconds = await ForkAsync(hypervisor, checkpoint, cancellationToken);
                if (i >= 0)
                {
                    elapsed.Add(microseconds);
                }
            }

            yield return Measurement.Of(Name, Measurement.Microseconds, Percentiles.Of(elapsed), floor: null, new JsonObject
            {
                ["memory_mb"] = MemoryMb,
                ["vcpus"] = 1,
                ["until"] = "first exit of the clone",
            });
        }
    }

    private static async Task<double> ForkAsync(KvmHypervisor hypervisor, IMachineSnapshot checkpoint, CancellationToken cancellationToken)
    {
        byte[] input = "show\n"u8.ToArray();
        Guid uuid = Guid.NewGuid();
        long start = Stopwatch.GetTimestamp();
        KvmMachine clone = (KvmMachine)await hypervisor.RestoreAsync(checkpoint, uuid, new SilentMonitor(), cancellationToken);
        await using (clone)
        {
            await clone.WriteConsoleAsync(input, cancellationToken);
            await clone.StartAsync(cancellationToken);
            SpinWait spin = default;
            while (clone.Exits == 0)
            {
                spin.SpinOnce(sleep1Threshold: -1);
            }

            return Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        }
    }

    private sealed class SilentMonitor : IMachineMonitor
    {
        public void OnConsoleOutput(ReadOnlySpan<byte> output)
        {
        }

        public void OnMainReached()
        {
        }

        public void OnTemplateRequested()
        {
        }

        public void OnForkRequested()
        {
        }
    }
}

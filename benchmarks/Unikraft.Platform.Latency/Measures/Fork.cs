using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// A clone from a checkpoint: from the call until the clone has run and left the guest for the first time. The checkpoint is of a sleeping guest,
/// which console input wakes.
/// </summary>
/// <param name="isPooled">Whether machines are kept ready; otherwise each is made from nothing.</param>
internal sealed class Fork(bool isPooled) : IMeasure
{
    private const int MemoryMb = 64;
    private const int Pages = 10;
    private const int WarmUp = 200;
    private const int ReadyMachines = 2;

    /// <summary>A machine that was taken is replaced within this.</summary>
    private static readonly TimeSpan Refilling = TimeSpan.FromMilliseconds(5);

    public string Name => isPooled ? "fork.pooled" : "fork.cold";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor(isPooled ? ReadyMachines : 0);
        CounterGuest source = await CounterGuest.StartAsync(hypervisor, MemoryMb, Pages, [], cancellationToken);
        await using (source)
        {
            using IMachineSnapshot checkpoint = await source.Machine.CaptureAsync(cancellationToken);
            await SampleAsync(WarmUp, cancellationToken);
            yield return await MeasureAsync(floorMappings: 0);
            if (!isPooled)
            {
                // What a VM costs grows with the mappings of its process, and a managed one has many.
                yield return await MeasureAsync((await File.ReadAllLinesAsync("/proc/self/maps", cancellationToken)).Length);
            }

            async Task<Measurement> MeasureAsync(int floorMappings)
            {
                (IReadOnlyList<double> subject, IReadOnlyList<double> floor) = await context.InterleaveAsync(
                    SampleAsync,
                    count => ["fork", CounterGuest.Image, Text(MemoryMb), Text(count), isPooled ? "pooled" : "cold", Text(floorMappings)],
                    context.Samples(1000, quick: 20),
                    cancellationToken);
                Target[] targets = isPooled
                    ? [Target.AtMost(Figure.P50, 400), Target.AtMost(Figure.P99, 1500), Target.AtMostFloorTimes(Figure.P50, 1.8)]
                    : [Target.AtMostFloorTimes(Figure.P50, 1.4)];
                return Measurement.Of(
                    Name,
                    Measurement.Microseconds,
                    Percentiles.Of(subject),
                    Percentiles.OfAny(floor),
                    new JsonObject
                    {
                        ["memory_mb"] = MemoryMb,
                        ["vcpus"] = 1,
                        ["ready_machines"] = isPooled ? ReadyMachines : 0,
                        ["until"] = "first exit of the clone",
                        ["mappings_added_to_floor"] = floorMappings,
                    },
                    targets);
            }

            async Task<IReadOnlyList<double>> SampleAsync(int count, CancellationToken token)
            {
                List<double> elapsed = [];
                for (int i = 0; i < count; i++)
                {
                    if (isPooled)
                    {
                        await Task.Delay(Refilling, TimeProvider.System, token);
                    }

                    elapsed.Add(await ForkAsync(hypervisor, checkpoint, token));
                }

                return elapsed;
            }
        }
    }

    /// <summary>Makes a clone of a sleeping guest, and takes it away again. Nothing of it is left for the next one to wait for.</summary>
    /// <returns>Microseconds until it has left the guest for the first time.</returns>
    internal static async Task<double> ForkAsync(KvmHypervisor hypervisor, IMachineSnapshot snapshot, CancellationToken cancellationToken)
    {
        byte[] input = "show\n"u8.ToArray();
        Guid uuid = Guid.NewGuid();
        double elapsed;
        long start = Stopwatch.GetTimestamp();
        KvmMachine clone = (KvmMachine)await hypervisor.RestoreAsync(snapshot, uuid, new SilentMonitor(), cancellationToken);
        await using (clone)
        {
            await clone.WriteConsoleAsync(input, cancellationToken);
            await clone.StartAsync(cancellationToken);
            SpinWait spin = default;
            while (clone.Exits == 0)
            {
                spin.SpinOnce(sleep1Threshold: -1);
            }

            elapsed = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        }

        await hypervisor.ReclaimAsync();
        return elapsed;
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);

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

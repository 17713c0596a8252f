using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>The time that cutting a volume adds to the pause of a snapshot, which must not depend on its size, on what is on it, or on whether it is written to.</summary>
internal sealed class VolumeCutPause : IMeasure
{
    private const double LimitMicroseconds = 100;

    /// <summary>What two medians of the same may differ by.</summary>
    private const double NoiseMicroseconds = 2;
    private const int BlockBytes = 4096;

    /// <summary>Written before each cut: all of the smallest volume, and a block for each table of the largest, which has 200.</summary>
    private const int Fragments = 256;
    private const int WarmUp = 5;

    private enum Contents
    {
        Empty,
        Fragmented,
        BeingWritten,
    }

    public string Name => "volume.cut";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        foreach (Contents contents in Enum.GetValues<Contents>())
        {
            double? smallest = null;
            foreach (long megabytes in (long[])[1, 1024, 100 << 10])
            {
                Percentiles cuts = Percentiles.Of(await MeasureAsync(megabytes << 20, contents, context.Samples(500, quick: 20), cancellationToken));
                List<Target> targets = [Target.AtMost(Figure.P99, LimitMicroseconds)];
                if (smallest is { } before)
                {
                    targets.Add(Target.AtMost(Figure.P50, before + NoiseMicroseconds));
                }

                smallest ??= cuts.P50;
                yield return Measurement.Of(
                    Name,
                    Measurement.Microseconds,
                    cuts,
                    floor: null,
                    new JsonObject
                    {
                        ["size_mb"] = megabytes,
                        ["contents"] = contents switch
                        {
                            Contents.Empty => "empty",
                            Contents.Fragmented => "fragmented",
                            _ => "being written, 16 requests outstanding",
                        },
                    },
                    targets);
            }
        }
    }

    private static async Task<List<double>> MeasureAsync(long size, Contents contents, int count, CancellationToken cancellationToken)
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("unikraft-cut-");
        try
        {
            OpenLayers layers = new();
            await using VolumeDisk disk = await VolumeDisk.CreateAsync(Path.Combine(directory.FullName, "disk.qcow2"), size, layers: layers, cancellationToken: cancellationToken);
            await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
            MachineConfiguration configuration = new()
            {
                Uuid = Guid.NewGuid(),
                Name = "kv",
                Image = GuestImage.FromFile(MeasureContext.Guest("blockio")),
                Vcpus = 1,
                MemoryMb = 32,
                Disks = [new MachineDisk { Slot = 0, Device = disk, Id = "disk" }],
            };
            await using IVirtualMachine machine = await hypervisor.CreateAsync(configuration, new SilentMonitor(), cancellationToken);
            await machine.StartAsync(cancellationToken);
            if (contents == Contents.BeingWritten)
            {
                _ = await machine.WriteConsoleAsync("write random 4096 16 1000000000000\n"u8.ToArray(), cancellationToken);
            }

            Random random = new(1);
            List<double> samples = [];
            for (int i = 0; i < count + WarmUp; i++)
            {
                if (contents == Contents.Fragmented)
                {
                    await FragmentAsync(disk, random, cancellationToken);
                }

                string path = Path.Combine(directory.FullName, $"{Guid.NewGuid():D}.qcow2");
                await using PreparedOverlay overlay = await disk.PrepareOverlayAsync(path, cancellationToken);
                TimedCut timed = new(new DiskCutOfVolumes([disk], [overlay]));
                (await machine.CaptureAsync(new CaptureOptions { Disks = timed }, cancellationToken)).Dispose();
                // The first ones are the JIT compiler's.
                if (i >= WarmUp)
                {
                    samples.Add(timed.Microseconds);
                }

                VolumeCut cut = timed.Inner.Cuts[0]!;
                cut.Publish();
                await cut.SealAsync();
                await cut.DisposeAsync();
            }

            return samples;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    /// <summary>Writes blocks that are far from each other, in no order, to the image that is cut next.</summary>
    private static async Task FragmentAsync(VolumeDisk disk, Random random, CancellationToken cancellationToken)
    {
        byte[] block = new byte[BlockBytes];
        random.NextBytes(block);
        int[] order = [.. Enumerable.Range(0, Fragments)];
        random.Shuffle(order);
        long stride = disk.Size / Fragments;
        foreach (int i in order)
        {
            await disk.WriteAsync((i * stride) + (random.NextInt64(stride / BlockBytes) * BlockBytes), block, cancellationToken);
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

    private sealed class TimedCut(DiskCutOfVolumes inner) : IDiskCut
    {
        internal DiskCutOfVolumes Inner { get; } = inner;

        internal double Microseconds { get; private set; }

        public ValueTask HoldAsync(CancellationToken cancellationToken) => Inner.HoldAsync(cancellationToken);

        public void Cut()
        {
            long start = Stopwatch.GetTimestamp();
            Inner.Cut();
            Microseconds = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        }

        public void Release() => Inner.Release();
    }
}

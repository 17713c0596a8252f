using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>The time that cutting a volume adds to the pause of a snapshot, which must not depend on its size or on what is on it.</summary>
internal sealed class VolumeCutPause : IMeasure
{
    private const double LimitMicroseconds = 100;
    private const int Fragments = 4096;
    private const int WarmUp = 5;

    public string Name => "volume.cut";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        foreach (long megabytes in (long[])[1, 1024, 100 << 10])
        {
            foreach (bool isFragmented in (bool[])[false, true])
            {
                List<double> samples = await MeasureAsync(megabytes << 20, isFragmented, context.Samples(500, quick: 20), cancellationToken);
                yield return Measurement.Of(
                    Name,
                    Measurement.Microseconds,
                    Percentiles.Of(samples),
                    floor: null,
                    new JsonObject { ["size_mb"] = megabytes, ["contents"] = isFragmented ? "fragmented" : "empty" },
                    Target.AtMost(Figure.P99, LimitMicroseconds));
            }
        }
    }

    private static async Task<List<double>> MeasureAsync(long size, bool isFragmented, int count, CancellationToken cancellationToken)
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("unikraft-cut-");
        try
        {
            OpenLayers layers = new();
            await using VolumeDisk disk = await VolumeDisk.CreateAsync(Path.Combine(directory.FullName, "disk.qcow2"), size, layers: layers, cancellationToken: cancellationToken);
            if (isFragmented)
            {
                Random random = new(1);
                for (int i = 0; i < Fragments; i++)
                {
                    await disk.WriteAsync(random.NextInt64(size / 4096) * 4096, new byte[4096], cancellationToken);
                }
            }

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
            List<double> samples = [];
            for (int i = 0; i < count + WarmUp; i++)
            {
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

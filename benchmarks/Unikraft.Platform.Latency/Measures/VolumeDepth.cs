using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>Random reads of a volume whose contents are spread over a chain of 16 images, over those of one image.</summary>
internal sealed class VolumeDepth : IMeasure
{
    private const int Depth = 16;
    private const long Size = 256 << 20;
    private const int Block = 4096;
    private const double Limit = 0.8;

    public string Name => "volume.depth";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("unikraft-depth-");
        try
        {
            await using VolumeDisk shallow = await MakeAsync(Path.Combine(directory.FullName, "shallow"), 1, cancellationToken);
            await using VolumeDisk deep = await MakeAsync(Path.Combine(directory.FullName, "deep"), Depth, cancellationToken);
            int requests = context.IsQuick ? 2000 : 50_000;
            List<double> ratios = [];
            for (int i = 0; i <= context.Samples(20, quick: 3); i++)
            {
                double one = await ReadAsync(shallow, requests);
                double ratio = one / await ReadAsync(deep, requests);

                // Whoever comes first finds nothing in memory.
                if (i > 0)
                {
                    ratios.Add(ratio);
                }
            }

            yield return Measurement.Of(
                Name,
                Measurement.Ratio,
                Percentiles.Of(ratios),
                floor: null,
                new JsonObject { ["depth"] = Depth, ["bytes"] = Block, ["size_mb"] = Size >> 20 },
                Target.AtLeast(Figure.P50, Limit));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static async Task<VolumeDisk> MakeAsync(string folder, int depth, CancellationToken cancellationToken)
    {
        Directory.CreateDirectory(folder);
        OpenLayers layers = new();
        VolumeDisk disk = await VolumeDisk.CreateAsync(Path.Combine(folder, "0.qcow2"), Size, layers: layers, cancellationToken: cancellationToken);
        byte[] cluster = new byte[64 << 10];
        new Random(1).NextBytes(cluster);
        for (int layer = 0; layer < depth; layer++)
        {
            for (long at = (long)layer * cluster.Length; at < Size; at += (long)depth * cluster.Length)
            {
                await disk.WriteAsync(at, cluster, cancellationToken);
            }

            await disk.FlushAsync(cancellationToken);
            if (layer < depth - 1)
            {
                await using PreparedOverlay overlay = await disk.PrepareOverlayAsync(Path.Combine(folder, $"{layer + 1}.qcow2"), cancellationToken);
                await disk.HoldAsync(cancellationToken);
                VolumeCut cut = disk.Cut(overlay);
                disk.Release();
                cut.Publish();
                await cut.SealAsync();
                await cut.DisposeAsync();
            }
        }

        return disk;
    }

    private static async Task<double> ReadAsync(VolumeDisk disk, int requests)
    {
        byte[] buffer = new byte[Block];
        Random random = new(3);
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < requests; i++)
        {
            await disk.ReadAsync(random.NextInt64(Size / Block) * Block, buffer);
        }

        return Stopwatch.GetElapsedTime(start).TotalMicroseconds;
    }
}

using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>From the call to a clone that can be used. The floor writes and flushes a file of the size of an empty image, and appends a line to another one and flushes that.</summary>
internal sealed class VolumeClone : IMeasure
{
    private const double LimitMicroseconds = 2000;
    private const int ImageBytes = 4 << 16;

    public string Name => "volume.clone";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("unikraft-clone-");
        try
        {
            await using IUnikraftPlatform platform = new UnikraftPlatformBuilder().Configure(options => options.VolumeDirectory = directory.FullName).UseKvm().Build();
            int count = context.Samples(200, quick: 10);
            foreach (int sizeMb in (int[])[8, 100 << 10])
            {
                Volume template = await platform.Volumes.CreateAsync(new CreateVolumeRequest { SizeMb = sizeMb, Filesystem = VolumeFilesystem.None }, cancellationToken);
                await platform.Volumes.ConvertAsync(template.Uuid, cancellationToken);
                yield return await MeasureAsync(
                    "volume template",
                    () => platform.Volumes.CreateAsync(new CreateVolumeRequest { Template = template.Uuid }, cancellationToken));

                Volume source = await platform.Volumes.CreateAsync(new CreateVolumeRequest { SizeMb = sizeMb, Filesystem = VolumeFilesystem.None }, cancellationToken);
                yield return await MeasureAsync("volume at rest", () => platform.Volumes.CloneAsync(source.Uuid, cancellationToken: cancellationToken));

                await platform.Instances.CreateAsync(
                    new CreateInstanceRequest
                    {
                        Image = MeasureContext.Guest("blockio"),
                        MemoryMb = 32,
                        Volumes = [new InstanceVolume { Volume = source.Uuid, At = "/data" }],
                        WaitTimeout = Timeout.InfiniteTimeSpan,
                    },
                    cancellationToken);
                yield return await MeasureAsync("volume that a guest has", () => platform.Volumes.CloneAsync(source.Uuid, cancellationToken: cancellationToken));

                async Task<Measurement> MeasureAsync(string what, Func<Task<Volume>> clone)
                {
                    List<double> samples = [];
                    List<double> floors = [];
                    for (int i = 0; i < count; i++)
                    {
                        floors.Add(Floor(directory.FullName));
                        long start = Stopwatch.GetTimestamp();
                        Volume made = await clone();
                        samples.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
                        await platform.Volumes.DeleteAsync(made.Uuid, cancellationToken);
                    }

                    return Measurement.Of(
                        Name,
                        Measurement.Microseconds,
                        Percentiles.Of(samples),
                        Percentiles.Of(floors),
                        new JsonObject { ["size_mb"] = sizeMb, ["source"] = what },
                        Target.AtMost(Figure.P50, LimitMicroseconds));
                }
            }
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static double Floor(string directory)
    {
        string path = Path.Combine(directory, "floor");
        byte[] image = new byte[ImageBytes];
        long start = Stopwatch.GetTimestamp();
        using (FileStream file = new(path, FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 0))
        {
            file.Write(image);
            file.Flush(flushToDisk: true);
        }

        using (FileStream line = new(path + ".journal", FileMode.Append, FileAccess.Write, FileShare.None, bufferSize: 0))
        {
            line.Write(image.AsSpan(0, 200));
            line.Flush(flushToDisk: true);
        }

        double elapsed = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        File.Delete(path);
        File.Delete(path + ".journal");
        return elapsed;
    }
}

using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text.Json.Nodes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>Making a checkpoint of 1 MiB of dirty pages durable, beside a loop that writes the same bytes to a file and syncs it.</summary>
internal sealed class StorePublish : IMeasure
{
    private const int MemoryMb = 64;
    private const int Pages = 256;
    private const int PageBytes = 4096;
    private const double Factor = 1.5;

    public string Name => "store.publish";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using StoreFolder folder = new();
        await using IUnikraftPlatform platform = folder.Open();
        Instance source = await StoreFolder.StartAsync(platform, MemoryMb, Pages, cancellationToken);
        await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
        int samples = context.Samples(100, quick: 5);
        List<double> ours = [];
        List<double> floor = [];
        byte[] bytes = RandomNumberGenerator.GetBytes(Pages * PageBytes);
        for (int i = 0; i < samples; i++)
        {
            await StoreFolder.TickAsync(platform, source, cancellationToken);
            long start = Stopwatch.GetTimestamp();
            await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
            ours.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
            floor.Add(WriteAndSync(folder.PathOf($"floor-{i}"), bytes));
        }

        yield return Measurement.Of(
            Name,
            Measurement.Microseconds,
            Percentiles.Of(ours),
            Percentiles.OfAny(floor),
            new JsonObject { ["memory_mb"] = MemoryMb, ["dirtied_bytes"] = Pages * PageBytes, ["floor"] = "write and fsync of the same bytes to a new file" },
            Target.AtMostFloorTimes(Figure.P50, Factor));
    }

    private static double WriteAndSync(string path, byte[] bytes)
    {
        long start = Stopwatch.GetTimestamp();
        using FileStream file = new(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 0);
        const int Chunk = 256 << 10;
        for (int offset = 0; offset < bytes.Length; offset += Chunk)
        {
            file.Write(bytes.AsSpan(offset, Math.Min(Chunk, bytes.Length - offset)));
        }

        file.Flush(flushToDisk: true);
        return Stopwatch.GetElapsedTime(start).TotalMicroseconds;
    }
}

/// <summary>Opening a platform on a data directory with many checkpoints.</summary>
internal sealed class StoreRecover : IMeasure
{
    private const int MemoryMb = 16;
    private const double LimitMicroseconds = 2_000_000;

    private static readonly int[] Counts = [100, 1000, 10_000];
    private static readonly int[] QuickCounts = [100, 300];

    public string Name => "store.recover";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int samples = context.Samples(10, quick: 3);
        using StoreFolder folder = new();
        double? perCheckpointBefore = null;
        int made = 0;
        foreach (int count in context.IsQuick ? QuickCounts : Counts)
        {
            await using (IUnikraftPlatform platform = folder.Open(Durability.HostManaged))
            {
                Instance source = await StoreFolder.StartAsync(platform, MemoryMb, pages: 1, cancellationToken);
                for (; made < count; made++)
                {
                    await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
                }

                await platform.Instances.DeleteAsync(source.Uuid, cancellationToken);
            }

            List<double> times = [];
            for (int i = 0; i < samples; i++)
            {
                long start = Stopwatch.GetTimestamp();
                await using IUnikraftPlatform platform = folder.Open(Durability.HostManaged);
                times.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
                if (platform.Checkpoints.List().Count != count)
                {
                    throw new InvalidOperationException("Not all checkpoints were recovered.");
                }
            }

            Percentiles percentiles = Percentiles.Of(times);
            double perCheckpoint = percentiles.P50 / count;
            List<Target> targets = [];
            if (count == Counts[^1])
            {
                targets.Add(Target.Below(Figure.P50, LimitMicroseconds));
            }

            if (perCheckpointBefore is { } before)
            {
                // No faster than linearly, with a tenth for noise.
                targets.Add(Target.AtMost(Figure.P50, before * count * 1.1));
            }

            perCheckpointBefore = perCheckpoint;
            yield return Measurement.Of(
                Name,
                Measurement.Microseconds,
                percentiles,
                floor: null,
                new JsonObject { ["checkpoints"] = count, ["us_per_checkpoint"] = Math.Round(perCheckpoint, 1), ["warm"] = "files in the page cache, compiled code" },
                targets);
        }
    }
}

/// <summary>How fast a data directory is verified, as a share of how fast the hash alone is.</summary>
internal sealed class StoreVerify : IMeasure
{
    private const int MemoryMb = 256;
    private const int Pages = 60_000;
    private const double Share = 0.8;
    private const double Gibibyte = 1 << 30;

    public string Name => "store.verify";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using StoreFolder folder = new();
        await using IUnikraftPlatform platform = folder.Open(Durability.HostManaged);
        Instance source = await StoreFolder.StartAsync(platform, MemoryMb, Pages, cancellationToken);
        await StoreFolder.TickAsync(platform, source, cancellationToken);
        Checkpoint checkpoint = await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
        byte[] same = RandomNumberGenerator.GetBytes(256 << 10);
        List<double> shares = [];
        double speed = 0;
        int samples = context.Samples(20, quick: 3);
        for (int i = 0; i < samples; i++)
        {
            long start = Stopwatch.GetTimestamp();
            await platform.Data!.VerifyAsync(checkpoint.Uuid, cancellationToken: cancellationToken);
            double ours = Stopwatch.GetElapsedTime(start).TotalSeconds;
            start = Stopwatch.GetTimestamp();
            for (long hashed = 0; hashed < checkpoint.StoredBytes; hashed += same.Length)
            {
                SHA256.HashData(same);
            }

            double hash = Stopwatch.GetElapsedTime(start).TotalSeconds;
            shares.Add(hash / ours);
            speed = checkpoint.StoredBytes / Gibibyte / ours;
        }

        yield return Measurement.Of(
            Name,
            Measurement.Ratio,
            Percentiles.Of(shares),
            floor: null,
            new JsonObject { ["bytes"] = checkpoint.StoredBytes, ["gib_per_s"] = Math.Round(speed, 2), ["of"] = "the speed of SHA-256 over the same bytes in memory" },
            Target.AtLeast(Figure.P50, Share));
    }
}

/// <summary>A data directory of a measure, which goes with it.</summary>
internal sealed class StoreFolder : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly string _path = Directory.CreateTempSubdirectory("store-").FullName;

    public void Dispose() => Directory.Delete(_path, recursive: true);

    internal string PathOf(string name) => Path.Combine(_path, name);

    internal IUnikraftPlatform Open(Durability durability = Durability.Synced)
    {
        UnikraftPlatformBuilder builder = new();
        builder.Configure(options => (options.DataDirectory, options.Durability) = (PathOf("data"), durability));
        builder.UseKvm();
        return builder.Build();
    }

    internal static async Task<Instance> StartAsync(IUnikraftPlatform platform, int memoryMb, int pages, CancellationToken cancellationToken)
    {
        Instance instance = await platform.Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Image = CounterGuest.Image,
                MemoryMb = memoryMb,
                Args = CounterGuest.Arguments(memoryMb, pages, "--random"),
                WaitTimeout = Patience,
            },
            cancellationToken);
        await TickAsync(platform, instance, cancellationToken);
        return instance;
    }

    internal static async Task TickAsync(IUnikraftPlatform platform, Instance instance, CancellationToken cancellationToken)
    {
        await using IInstanceConsole console = platform.Instances.AttachConsole(instance.Uuid);
        await console.Input.WriteAsync("tick\n"u8.ToArray(), cancellationToken);
        while (true)
        {
            System.IO.Pipelines.ReadResult read = await console.Output.ReadAsync(cancellationToken);
            bool isDone = System.Text.Encoding.ASCII.GetString(System.Buffers.BuffersExtensions.ToArray(read.Buffer)).Contains('\n', StringComparison.Ordinal);
            console.Output.AdvanceTo(isDone ? read.Buffer.End : read.Buffer.Start, read.Buffer.End);
            if (isDone)
            {
                return;
            }
        }
    }

    internal static Task<Checkpoint> CheckpointAsync(IUnikraftPlatform platform, Instance source, CancellationToken cancellationToken) =>
        platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = Patience }, cancellationToken);
}

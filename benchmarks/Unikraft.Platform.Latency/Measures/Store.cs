using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text.Json.Nodes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// Making a checkpoint of 1 MiB of dirty pages durable, beside a loop that writes the same bytes to a file and syncs it: in turn with the library, which is still at work in the
/// background then, and when it is done. The faster of the two is the floor.
/// </summary>
internal sealed class StorePublish : IMeasure
{
    private const int MemoryMb = 64;
    private const int Pages = 256;
    private const int PageBytes = 4096;
    private const int WarmUp = 240;

    // .NET compiles a method in three steps, each after some calls and a moment without new methods.
    private const int WarmUpRound = 60;
    private const double Factor = 1.5;

    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Spacing = TimeSpan.FromMilliseconds(100);

    public string Name => "store.publish";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using StoreFolder folder = new();
        await using IUnikraftPlatform platform = folder.Open();
        Instance source = await StoreFolder.StartAsync(platform, MemoryMb, Pages, cancellationToken);
        await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
        int samples = context.Samples(100, quick: 5);
        List<double> ours = [];
        List<double> inTurn = [];
        List<double> alone = [];
        byte[] bytes = RandomNumberGenerator.GetBytes(Pages * PageBytes);
        for (int i = context.IsQuick ? -5 : -WarmUp; i < samples; i++)
        {
            if (!context.IsQuick && i <= 0 && i % WarmUpRound == 0)
            {
                await Task.Delay(Settling, TimeProvider.System, cancellationToken);
            }

            await StoreFolder.TickAsync(platform, source, cancellationToken);
            long start = Stopwatch.GetTimestamp();
            await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
            double elapsed = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
            double floor = WriteAndSync(folder.PathOf($"floor-{i}"), bytes);
            if (i >= 0)
            {
                ours.Add(elapsed);
                inTurn.Add(floor);
            }
        }

        await Task.Delay(Settling, TimeProvider.System, cancellationToken);
        List<double> spaced = [];
        for (int i = 0; i < samples; i++)
        {
            await StoreFolder.TickAsync(platform, source, cancellationToken);
            long start = Stopwatch.GetTimestamp();
            await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
            spaced.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
            await Task.Delay(Spacing, TimeProvider.System, cancellationToken);
        }

        await Task.Delay(Settling, TimeProvider.System, cancellationToken);
        for (int i = 0; i < samples; i++)
        {
            alone.Add(WriteAndSync(folder.PathOf($"alone-{i}"), bytes));
        }

        Percentiles floorInTurn = Percentiles.Of(inTurn);
        Percentiles floorAlone = Percentiles.Of(alone);
        yield return Measurement.Of(
            Name,
            Measurement.Microseconds,
            Percentiles.Of(ours),
            floorAlone.P50 < floorInTurn.P50 ? floorAlone : floorInTurn,
            new JsonObject
            {
                ["memory_mb"] = MemoryMb,
                ["dirtied_bytes"] = Pages * PageBytes,
                ["floor"] = "write and fsync of the same bytes to a new file",
                ["floor_in_turn_p50"] = Math.Round(floorInTurn.P50, 1),
                ["floor_alone_p50"] = Math.Round(floorAlone.P50, 1),
                ["warm"] = "compiled code",
            },
            Target.AtMostFloorTimes(Figure.P50, Factor));
        yield return Measurement.Of(
            Name,
            Measurement.Microseconds,
            Percentiles.Of(spaced),
            floorAlone,
            new JsonObject
            {
                ["memory_mb"] = MemoryMb,
                ["dirtied_bytes"] = Pages * PageBytes,
                ["spaced_ms"] = Spacing.TotalMilliseconds,
                ["floor"] = "the same, alone",
                ["warm"] = "compiled code, but processor and disk have been idle in between",
            });
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

/// <summary>Opening a platform on a data directory with many checkpoints: without volumes, left to the host and synced, and with volumes, whose chains are short and long.</summary>
internal sealed class StoreRecover : IMeasure
{
    private const int MemoryMb = 16;
    private const int VolumeMb = 16;
    private const double LimitMicroseconds = 2_000_000;
    private const int LoggedMemoryMb = 64;
    private const int LoggedPages = 256;

    // What the record of a checkpoint takes at most.
    private const long LoggedBytes = 5 << 18;
    private const int Stretch = 40;
    private const int MaxFullLogs = 5;

    private static readonly TimeSpan Lengthening = TimeSpan.FromSeconds(2);

    // Fewer images than are folded.
    private const int ShortLineage = 8;

    private static readonly int[] Counts = [100, 1000, 10_000];
    private static readonly int[] QuickCounts = [100, 300];

    private static readonly Kind[] Kinds =
    [
        new("no volumes", Durability.HostManaged, int.MaxValue, HasVolume: false),
        new("no volumes, synced", Durability.Synced, int.MaxValue, HasVolume: false),
        new("a volume each, chains of 8", Durability.Synced, ShortLineage, HasVolume: true),
        new("a volume each, one lineage", Durability.Synced, int.MaxValue, HasVolume: true),
    ];

    public string Name => "store.recover";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int samples = context.Samples(10, quick: 3);
        foreach (Kind kind in Kinds)
        {
            using StoreFolder folder = new();
            double? perCheckpointBefore = null;
            int made = 0;
            foreach (int count in context.IsQuick ? QuickCounts : Counts)
            {
                await MakeAsync(folder, kind, made, count, cancellationToken);
                made = count;
                Percentiles percentiles = await OpenAsync(folder, kind, count, samples);
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
                    new JsonObject
                    {
                        ["checkpoints"] = count,
                        ["of"] = kind.What,
                        ["us_per_checkpoint"] = Math.Round(perCheckpoint, 1),
                        ["warm"] = "files in the page cache, compiled code",
                    },
                    targets);
            }

            if (kind is { HasVolume: false, Durability: Durability.Synced })
            {
                yield return await WithFullLogAsync(folder, made, Math.Min(samples, MaxFullLogs), cancellationToken);
            }
        }
    }

    /// <summary>The same directory, killed when all of its publication log is in use: the snapshots in it get their files before it is open.</summary>
    private static async Task<Measurement> WithFullLogAsync(StoreFolder folder, int made, int samples, CancellationToken cancellationToken)
    {
        HeldTimeProvider time = new();
        List<double> times = [];
        int count = 0;
        int logged = 0;
        long length = 0;
        await using (IUnikraftPlatform platform = folder.Open(Durability.Synced, time))
        {
            Instance source = await StoreFolder.StartAsync(platform, LoggedMemoryMb, LoggedPages, cancellationToken);

            // Saved at a stretch: the log gets the length that it has for good.
            await MakeAsync(Stretch);
            await Task.Delay(Lengthening, TimeProvider.System, cancellationToken);

            // From now on nobody makes files but who finds it full.
            time.IsHeld = true;
            length = folder.LogLength;
            logged = (int)(length / LoggedBytes);
            await MakeAsync(logged);
            count = made + Stretch + logged;
            for (int i = 0; i < samples; i++)
            {
                using StoreFolder killed = folder.Copy();
                long start = Stopwatch.GetTimestamp();
                await using IUnikraftPlatform again = killed.Open(Durability.Synced);
                times.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
                if (again.Checkpoints.List().Count != count)
                {
                    throw new InvalidOperationException("Not all checkpoints were recovered.");
                }
            }

            async Task MakeAsync(int checkpoints)
            {
                for (int i = 0; i < checkpoints; i++)
                {
                    await StoreFolder.TickAsync(platform, source, cancellationToken);
                    await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
                }
            }
        }

        return Measurement.Of(
            "store.recover",
            Measurement.Microseconds,
            Percentiles.Of(times),
            floor: null,
            new JsonObject
            {
                ["checkpoints"] = count,
                ["in_log"] = logged,
                ["log_mib"] = length >> 20,
                ["warm"] = "a copy of a directory of which the platform did not end, in the page cache, compiled code",
            },
            count > Counts[^1] ? [Target.Below(Figure.P50, LimitMicroseconds)] : []);
    }

    // What is made is left to the host: it is there all the same when the same host opens it.
    private static async Task MakeAsync(StoreFolder folder, Kind kind, int from, int to, CancellationToken cancellationToken)
    {
        await using IUnikraftPlatform platform = folder.Open(Durability.HostManaged);
        for (int made = from; made < to;)
        {
            Volume? volume = kind.HasVolume
                ? await platform.Volumes.CreateAsync(new CreateVolumeRequest { SizeMb = VolumeMb, Filesystem = VolumeFilesystem.None }, cancellationToken)
                : null;
            Instance source = await StoreFolder.StartAsync(platform, MemoryMb, pages: 1, cancellationToken, volume);
            for (int end = made + Math.Min(kind.Lineage, to - made); made < end; made++)
            {
                await StoreFolder.CheckpointAsync(platform, source, cancellationToken);
            }

            await platform.Instances.DeleteAsync(source.Uuid, cancellationToken);
            if (volume is not null)
            {
                await platform.Volumes.DeleteAsync(volume.Uuid, cancellationToken);
            }
        }
    }

    private static async Task<Percentiles> OpenAsync(StoreFolder folder, Kind kind, int count, int samples)
    {
        List<double> times = [];
        for (int i = 0; i < samples; i++)
        {
            long start = Stopwatch.GetTimestamp();
            await using IUnikraftPlatform platform = folder.Open(kind.Durability);
            times.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
            if (platform.Checkpoints.List().Count != count)
            {
                throw new InvalidOperationException("Not all checkpoints were recovered.");
            }
        }

        return Percentiles.Of(times);
    }

    private sealed record Kind(string What, Durability Durability, int Lineage, bool HasVolume);
}

/// <summary>The clock of the host, of which timers need not go off.</summary>
internal sealed class HeldTimeProvider : TimeProvider
{
    /// <summary>Whether timers that are made from now on never go off.</summary>
    internal bool IsHeld { get; set; }

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) =>
        IsHeld ? base.CreateTimer(callback, state, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan) : base.CreateTimer(callback, state, dueTime, period);
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

    /// <summary>The length of the publication log.</summary>
    internal long LogLength => new FileInfo(Path.Combine(PathOf("data"), "snapshots", "publication.log")).Length;

    /// <summary>What a process that is killed now leaves.</summary>
    internal StoreFolder Copy()
    {
        StoreFolder copy = new();
        string from = PathOf("data");
        foreach (string directory in Directory.EnumerateDirectories(from, "*", SearchOption.AllDirectories).Prepend(from))
        {
            Directory.CreateDirectory(Path.Combine(copy.PathOf("data"), Path.GetRelativePath(from, directory)));
        }

        foreach (string file in Directory.EnumerateFiles(from, "*", SearchOption.AllDirectories).Where(static file => Path.GetFileName(file) is not "lock"))
        {
            File.Copy(file, Path.Combine(copy.PathOf("data"), Path.GetRelativePath(from, file)));
        }

        return copy;
    }

    internal IUnikraftPlatform Open(Durability durability = Durability.Synced, TimeProvider? time = null)
    {
        UnikraftPlatformBuilder builder = new();
        builder.UseTimeProvider(time ?? TimeProvider.System);
        builder.Configure(options => (options.DataDirectory, options.Durability) = (PathOf("data"), durability));
        builder.UseKvm();
        return builder.Build();
    }

    internal static async Task<Instance> StartAsync(IUnikraftPlatform platform, int memoryMb, int pages, CancellationToken cancellationToken, Volume? volume = null)
    {
        Instance instance = await platform.Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Image = CounterGuest.Image,
                MemoryMb = memoryMb,
                Args = CounterGuest.Arguments(memoryMb, pages, "--random"),
                Volumes = volume is null ? [] : [new InstanceVolume { Volume = volume.Uuid, At = "/data" }],
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

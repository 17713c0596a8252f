using System.Buffers;
using System.Diagnostics;
using System.Globalization;
using System.Runtime;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json.Nodes;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// How fast a guest reads or writes a volume whose contents are in the host's cache, over the same pattern by plain reads and writes of the host; and the qcow2
/// layer by itself, over QEMU's. The floor of small reads one at a time is a C program that hands each to another thread through a virtqueue: how far apart the processors are
/// decides most of it.
/// </summary>
internal sealed class VolumeTransfer(bool isWrite) : IMeasure
{
    private const int SizeMb = 256;
    private const double GuestLimit = 0.5;
    private const double LayerLimit = 0.9;
    private const int SmallRequests = 20_000;

    /// <summary>So many rounds without anything compiled are the end of it: what was called often is compiled a tenth of a second later, and not all of it at once.</summary>
    private const int QuietRehearsals = 10;

    /// <summary>Something else may be compiled for ever.</summary>
    private const int MostRehearsals = 200;

    public string Name => isWrite ? "volume.write" : "volume.read";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("unikraft-transfer-");
        try
        {
            string raw = Path.Combine(directory.FullName, "disk.raw");
            await FillAsync(raw, cancellationToken);
            await using (IUnikraftPlatform platform = new UnikraftPlatformBuilder().UseKvm().Build())
            {
                await platform.Volumes.CreateAsync(
                    new CreateVolumeRequest { Name = "data", CopyOf = new DiskImageFile(raw, DiskImageFormat.Raw) },
                    cancellationToken);
                Instance instance = await platform.Instances.CreateAsync(
                    new CreateInstanceRequest
                    {
                        Image = MeasureContext.Guest("blockio"),
                        MemoryMb = 128,
                        Volumes = [new InstanceVolume { Volume = "data", At = "/data" }],
                        WaitTimeout = Timeout.InfiniteTimeSpan,
                    },
                    cancellationToken);
                await using IInstanceConsole console = platform.Instances.AttachConsole(instance.Uuid);
                await RehearseAsync(console, raw, context, cancellationToken);
                foreach ((string pattern, int bytes) in ((string, int)[])[("random", 4 << 10), ("seq", 256 << 10)])
                {
                    foreach (int depth in (int[])[1, 16])
                    {
                        List<double> ratios = [];
                        List<double> floors = [];
                        bool hasFloor = !isWrite && depth == 1 && bytes == 4 << 10;
                        int requests = context.IsQuick ? 200 : bytes > 4096 ? 1000 : SmallRequests;
                        for (int i = 0; i < context.Samples(20, quick: 3); i++)
                        {
                            double host = Host(raw, pattern, bytes, requests);
                            double guest = await GuestAsync(console, pattern, bytes, depth, requests, cancellationToken);
                            ratios.Add(host / guest);
                            if (hasFloor)
                            {
                                floors.AddRange(await context.TakeFloorAsync(["transfer", raw, requests.ToString(CultureInfo.InvariantCulture)], cancellationToken));
                            }
                        }

                        yield return Row(ratios, "guest over pread and pwrite", pattern, bytes, depth, GuestLimit, floors);
                    }
                }
            }

            await foreach (Measurement row in MeasureLayerAsync(directory.FullName, raw, context, cancellationToken))
            {
                yield return row;
            }
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static async Task FillAsync(string path, CancellationToken cancellationToken)
    {
        byte[] part = new byte[1 << 20];
        new Random(1).NextBytes(part);
        await using FileStream file = new(path, FileMode.Create);
        for (int i = 0; i < SizeMb; i++)
        {
            await file.WriteAsync(part, cancellationToken);
        }
    }

    /// <summary>
    /// Takes small requests, on both sides, until the runtime compiles none of what they run any more: its compiler has one of the processors meanwhile, which the guest and the
    /// thread that serves it take both, and requests take two to four times as long.
    /// </summary>
    private async Task RehearseAsync(IInstanceConsole console, string raw, MeasureContext context, CancellationToken cancellationToken)
    {
        int rounds = context.IsQuick ? 1 : MostRehearsals;
        for (int quiet = 0; quiet < QuietRehearsals && rounds > 0; rounds--)
        {
            long compiled = JitInfo.GetCompiledMethodCount();
            _ = Host(raw, "random", 4 << 10, SmallRequests);
            _ = await GuestAsync(console, "random", 4 << 10, depth: 1, SmallRequests, cancellationToken);
            quiet = JitInfo.GetCompiledMethodCount() == compiled ? quiet + 1 : 0;
        }
    }

    /// <summary>Takes the pattern on the host.</summary>
    /// <returns>Microseconds.</returns>
    private double Host(string raw, string pattern, int bytes, int requests)
    {
        using var file = File.OpenHandle(raw, FileMode.Open, FileAccess.ReadWrite);
        byte[] buffer = new byte[bytes];
        Random random = new(2);
        bool isRandom = string.Equals(pattern, "random", StringComparison.Ordinal);
        long blocks = ((long)SizeMb << 20) / bytes;
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < requests; i++)
        {
            long offset = (isRandom ? random.NextInt64(blocks) : i % blocks) * bytes;
            if (isWrite)
            {
                RandomAccess.Write(file, buffer, offset);
            }
            else
            {
                _ = RandomAccess.Read(file, buffer, offset);
            }
        }

        return Stopwatch.GetElapsedTime(start).TotalMicroseconds;
    }

    private async Task<double> GuestAsync(
        IInstanceConsole console,
        string pattern,
        int bytes,
        int depth,
        int requests,
        CancellationToken cancellationToken)
    {
        string command = string.Create(CultureInfo.InvariantCulture, $"{(isWrite ? "write" : "read")} {pattern} {bytes} {depth} {requests}\n");
        await console.Input.WriteAsync(Encoding.ASCII.GetBytes(command), cancellationToken);
        while (true)
        {
            var read = await console.Output.ReadAsync(cancellationToken);
            if (read.Buffer.PositionOf((byte)'\n') is not { } end)
            {
                console.Output.AdvanceTo(read.Buffer.Start, read.Buffer.End);
                continue;
            }

            string line = Encoding.ASCII.GetString(read.Buffer.Slice(0, end));
            console.Output.AdvanceTo(read.Buffer.GetPosition(1, end));
            int at = line.IndexOf("ns=", StringComparison.Ordinal);
            if (line.StartsWith("io ", StringComparison.Ordinal))
            {
                return at > 0
                    ? double.Parse(line.AsSpan(at + 3), CultureInfo.InvariantCulture) / MeasureContext.NanosecondsPerMicrosecond
                    : throw new InvalidOperationException($"The guest says '{line}'.");
            }
        }
    }

    private async IAsyncEnumerable<Measurement> MeasureLayerAsync(
        string directory,
        string raw,
        MeasureContext context,
        [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        string image = Path.Combine(directory, "disk.qcow2");
        if (await RunQemuAsync(["convert", "-f", "raw", "-O", "qcow2", raw, image], cancellationToken) is null)
        {
            yield break;
        }

        foreach (int bytes in (int[])[4 << 10, 256 << 10])
        {
            foreach (int depth in (int[])[1, 16])
            {
                int requests = context.IsQuick ? 1000 : bytes > 4096 ? 2000 : 50_000;
                List<double> ratios = [];
                for (int i = 0; i < context.Samples(20, quick: 3); i++)
                {
                    string[] arguments =
                    [
                        "bench", "-f", "qcow2", "-t", "writeback", "-d", $"{depth}", "-c", $"{requests}", "-s", $"{bytes}", "-S", $"{bytes}", .. isWrite ? (string[])["-w"] : [], image,
                    ];
                    string output = (await RunQemuAsync(arguments, cancellationToken))!;
                    string seconds = output[(output.IndexOf("completed in ", StringComparison.Ordinal) + "completed in ".Length)..].Split(' ')[0];
                    double theirs = double.Parse(seconds, CultureInfo.InvariantCulture) * 1e6;
                    await using VolumeDisk disk = await VolumeDisk.OpenAsync(image, cancellationToken: cancellationToken);
                    ratios.Add(theirs / await OursAsync(disk, bytes, depth, requests));
                }

                yield return Row(ratios, "layer over qemu-img bench", "seq", bytes, depth, LayerLimit, floors: []);
            }
        }
    }

    // As many requests as the depth are under way at a time, in buffers of their own, as QEMU has them: the next one takes the place of one that is done.
    private async Task<double> OursAsync(VolumeDisk disk, int bytes, int depth, int requests)
    {
        byte[][] buffers = [.. Enumerable.Range(0, depth).Select(_ => new byte[bytes])];
        long blocks = disk.Size / bytes;
        int next = -1;
        long start = Stopwatch.GetTimestamp();
        await (depth == 1 ? TransferAsync(buffers[0]) : Task.WhenAll(buffers.Select(buffer => Task.Run(() => TransferAsync(buffer)))));
        return Stopwatch.GetElapsedTime(start).TotalMicroseconds;

        async Task TransferAsync(byte[] buffer)
        {
            for (int i = Interlocked.Increment(ref next); i < requests; i = Interlocked.Increment(ref next))
            {
                long offset = i % blocks * bytes;
                await (isWrite ? disk.WriteAsync(offset, buffer) : disk.ReadAsync(offset, buffer));
            }
        }
    }

    private static async Task<string?> RunQemuAsync(string[] arguments, CancellationToken cancellationToken)
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo("qemu-img", arguments) { UseShellExecute = false, RedirectStandardOutput = true })!;
            string output = await process.StandardOutput.ReadToEndAsync(cancellationToken);
            await process.WaitForExitAsync(cancellationToken);
            return process.ExitCode == 0 ? output : throw new InvalidOperationException($"qemu-img {arguments[0]} ended with {process.ExitCode}.");
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }

    private Measurement Row(List<double> ratios, string what, string pattern, int bytes, int depth, double limit, List<double> floors) => Measurement.Of(
        Name,
        Measurement.Ratio,
        Percentiles.Of(ratios),
        floors.Count > 0 ? Percentiles.Of(floors) : null,
        new JsonObject { ["what"] = what, ["pattern"] = pattern, ["bytes"] = bytes, ["depth"] = depth },
        Target.AtLeast(Figure.P50, limit));
}

using System.Buffers;
using System.Globalization;
using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.Kvm;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.CrashChild;

/// <summary>
/// Random operations on a data directory. Which they are depends on the seed alone. What a guest holds when it is kept is said with the acknowledgement: <c>nonce:tick</c> of a counter,
/// <c>kv:value</c> of one with a volume, <c>-</c> when it is not known.
/// </summary>
/// <param name="directory">The data directory. Archives go to one beside it.</param>
/// <param name="guests">Where the guests for real machines are; <see langword="null"/> to run none.</param>
/// <param name="kill">Knows where to stop.</param>
/// <param name="say">Told what is begun and what was acknowledged.</param>
internal sealed class Script(string directory, string? guests, KillSwitch kill, Action<string> say)
{
    private const string Unknown = "-";
    private const string Until = "until ";

    private const int FirstWritten = 20_000;

    /// <summary>How many operations lead to what a script is repeated for, and how often they are at most.</summary>
    private const int Repeated = 13;
    private const int MostRepeats = 100;

    /// <summary>Scripts of what random ones seldom come to.</summary>
    private static readonly string[][] Written =
    [
        // Volumes that are not there any more come out of an archive.
        [
            "volume v0", "kv n0 v0", "checkpoint n0 c0", "export c0.tar", "export c0", "delete-checkpoint c0", "delete-instance n0", "delete-volume v0", "import c0.tar", "load c0 n1",
            "delete-instance n1", "delete-checkpoint c0", "import c0", "restart", "load c0 n1",
        ],

        // A template takes the volume of its instance over.
        ["volume v0", "kv n0 v0", "template n0", "clone n0 n1", "restart", "clone n0 n2", "delete-template n0", "volume v1", "kv n3 v1", "stop n3", "template n3"],

        // Output is written each time.
        ["instance n0", "restart", "start n0", "restart", "start n0", "tick n0", "restart"],

        // The journal of volumes gets longer than its room, and is written anew.
        ["volume v0", "restart", .. Enumerable.Range(0, 24).SelectMany(static _ => (string[])["volume v1", "delete-volume v1"]), "restart"],

        // For machines. So many layers that what is folded gets a file of its own, however long a checkpoint takes here; of memory that is not zero, for what lies alone among zeroes is not folded.
        // How many depends on when it is folded: a snapshot that is folded before it is saved takes the fold along, and the next one begins anew.
        ["instance n0 scattered", .. Scattered(66), "settle", .. Scattered(6), "until SyncDirectory@SnapshotDirectory.KeepFold"],
    ];

    private static IEnumerable<string> Scattered(int count) =>
        Enumerable.Range(0, count).SelectMany(static i => (string[])[$"checkpoint n0 c{i % 2}", $"delete-checkpoint c{(i + 1) % 2}"]);

    private readonly Dictionary<string, string> _held = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> _exported = new(StringComparer.Ordinal);
    private UnikraftPlatform? _platform;
    private KvmHypervisor? _kvm;

    private string Archives => directory + "-archives";

    private UnikraftPlatform Platform => _platform!;

    /// <param name="seed">The seed. From <see cref="FirstWritten"/> on, scripts are written out.</param>
    /// <param name="operations">How many operations a random one has.</param>
    internal async Task RunAsync(int seed, int operations)
    {
        Directory.CreateDirectory(Archives);
        if (guests is null)
        {
            // The backend in memory goes by their names; that they are kept needs something to keep.
            foreach (string guest in (string[])["counter", "kv"])
            {
                await File.WriteAllTextAsync(Path.Combine(Archives, guest + ".elf"), $"{guest} of {directory}");
            }
        }

        _platform = Open();
        string[]? written = seed - FirstWritten is >= 0 and int number && number < Written.Length && operations > 0 ? Written[number] : null;
        Random random = new(seed);
        int repeats = 0;
        for (int i = 0; i < (written?.Length ?? operations); i++)
        {
            if (written is not null && written[i].StartsWith(Until, StringComparison.Ordinal))
            {
                if (!kill.HasPassed(written[i][Until.Length..]))
                {
                    i = ++repeats <= MostRepeats ? i - Repeated - 1 : throw new InvalidOperationException($"'{written[i]}' is not reached.");
                }

                continue;
            }

            string operation = written is null ? Choose(random, i) : string.Create(CultureInfo.InvariantCulture, $"{written[i]} {i}");
            say($"begin {operation}");
            try
            {
                say($"done {await DoAsync(operation.Split(' '))}");
            }
            catch (PlatformException error)
            {
                say($"refused {error.Code}");
            }
        }

        await Platform.DisposeAsync();
    }

    /// <summary>Opens the directory, a second time if the disk has failed in the first.</summary>
    private UnikraftPlatform Open()
    {
        try
        {
            return OpenOnce();
        }
        catch (StorageException) when (kill.HasFailed)
        {
            return OpenOnce();
        }
    }

    private UnikraftPlatform OpenOnce()
    {
        KillingFileLayer files = new(new HostFileLayer(guests is null ? null : new DirectorySync(HostFileSystem.Instance)), kill);
        return new UnikraftPlatform(
            new PlatformOptions { DataDirectory = directory, MinFreeDiskBytes = 0 },
            TimeProvider.System,
            NullLoggerFactory.Instance,
            context => guests is null ? new InMemoryHypervisor(new InMemoryHypervisorOptions(), context, files) : OpenKvm(context),
            files,
            files,
            files,
            new VolumeJournalOptions { MinRewriteLength = 5 << 10 });
    }

    // The log is small, and made early: it is filled, used over and emptied within a few snapshots.
    private KvmHypervisor OpenKvm(HypervisorContext context) => _kvm = new KvmHypervisor(
        new KvmOptions { WarmUp = false, ReadyMachines = 0 },
        context,
        files: new KillingFileSystem(kill),
        log: new PublicationLogOptions(TimeProvider.System) { Length = 2 << 20, MaxLength = 8 << 20, Threshold = 2 });

    /// <summary>The next operation: mostly one on what there is, so that few are refused.</summary>
    private string Choose(Random random, int step)
    {
        string[] instances = [.. Platform.Instances.List().Select(static instance => instance.Name).Order(StringComparer.Ordinal)];
        string free = $"n{random.Next(6)}";
        string one = Pick(random, instances, free);
        string point = $"c{random.Next(4)}";
        string taken = Pick(random, [.. Platform.Checkpoints.List().Select(static checkpoint => checkpoint.Name).Order(StringComparer.Ordinal)], point);
        string volume = $"v{random.Next(3)}";
        string image = Pick(random, [.. Platform.Volumes.List().Select(static known => known.Name).OfType<string>().Where(static name => name.Length > 0).Order(StringComparer.Ordinal)], volume);
        string template = Pick(random, [.. Platform.Templates.List().Select(static template => template.Name).Order(StringComparer.Ordinal)], free);
        int choice = instances.Length == 0 ? 12 * random.Next(2) : _exported.Count > 0 && random.Next(8) == 0 ? 26 : random.Next(28);
        string operation = choice switch
        {
            0 or 2 => $"instance {free}",
            1 or 3 => $"kv {free} {image}",
            4 => $"delete-instance {one}",
            5 or 6 or 7 or 8 => $"checkpoint {one} {point}",
            9 or 10 => $"delete-checkpoint {taken}",
            11 => $"tag {one} t{step}",
            12 or 13 => $"volume {volume}",
            14 => $"delete-volume {image}",
            15 => $"clone-volume {image} {volume}",
            16 or 17 => $"load {taken} {free}",
            18 => $"branch {one} {free}",
            19 => $"template {one}",
            20 => $"clone {template} {free}",
            21 => $"delete-template {template}",
            22 => $"suspend {one}",
            23 => $"start {one}",
            24 => $"stop {one}",
            25 => random.Next(2) == 0 ? $"export {taken}.tar" : $"export {taken}",
            26 when _exported.Count > 0 => Import(Pick(random, [.. _exported.Keys.Order(StringComparer.Ordinal)], point)),
            _ => random.Next(4) == 0 ? "restart" : $"tick {one}",
        };
        return $"{operation} {step.ToString(CultureInfo.InvariantCulture)}";
    }

    // What is there already makes room first.
    private string Import(string archive) =>
        Platform.Checkpoints.List().Any(checkpoint => string.Equals(checkpoint.Name, Path.GetFileNameWithoutExtension(archive), StringComparison.Ordinal))
            ? $"delete-checkpoint {Path.GetFileNameWithoutExtension(archive)}"
            : $"import {archive}";

    private static string Pick(Random random, string[] names, string otherwise) => names.Length > 0 && random.Next(8) != 0 ? names[random.Next(names.Length)] : otherwise;

    private async Task<string> DoAsync(string[] words)
    {
        string step = words[^1];
        switch (words[0])
        {
            case "instance":
                string[] arena = words.Length > 3 ? ["--arena-mb", "8", "--touch", "--pages", "12", "--random"] : ["--arena-mb", "1"];
                await Platform.Instances.CreateAsync(Request("counter", ["--period-ms", "0", .. arena]) with { Name = words[1] });
                return await TickAsync(words[1], step);
            case "kv":
                await Platform.Instances.CreateAsync(Request("kv") with { Name = words[1], Volumes = [new InstanceVolume { Volume = words[2], At = "/data" }] });
                return await TickAsync(words[1], step);
            case "delete-instance":
                await Platform.Instances.DeleteAsync(words[1]);
                return Unknown;
            case "checkpoint":
                string held = await HoldAsync(words[1], step);
                await Platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = words[1], Name = words[2], WaitTimeout = Timeout.InfiniteTimeSpan });
                return _held[words[2]] = held;
            case "delete-checkpoint":
                await Platform.Checkpoints.DeleteAsync(words[1]);
                return Unknown;
            case "tag":
                await Platform.Instances.PatchAsync(words[1], [new PatchOperation.SetTags(words[2])]);
                return Unknown;
            case "volume":
                await Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = words[1], SizeMb = 1, Filesystem = VolumeFilesystem.None });
                return Unknown;
            case "delete-volume":
                await Platform.Volumes.DeleteAsync(words[1]);
                return Unknown;
            case "clone-volume":
                await Platform.Volumes.CloneAsync(words[1], new CloneVolumeRequest { Name = words[2] });
                return Unknown;
            case "load":
                await Platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = words[1], Name = words[2], WaitTimeout = Timeout.InfiniteTimeSpan });
                return await TickAsync(words[2], step);
            case "branch":
                await Platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = words[1], Name = words[2], WaitTimeout = Timeout.InfiniteTimeSpan });
                return await TickAsync(words[2], step);
            case "template":
                string kept = await HoldAsync(words[1], step);
                await Platform.Templates.ConvertAsync(words[1]);
                return kept;
            case "clone":
                await Platform.Instances.CreateAsync(new CreateInstanceRequest { Template = words[1], Name = words[2], WaitTimeout = Timeout.InfiniteTimeSpan });
                return await TickAsync(words[2], step);
            case "delete-template":
                await Platform.Templates.DeleteAsync(words[1]);
                return Unknown;
            case "suspend":
                string before = await HoldAsync(words[1], step);
                await Platform.Instances.SuspendAsync(words[1]);
                return before;
            case "start":
                await Platform.Instances.StartAsync(words[1]);
                return await TickAsync(words[1], step);
            case "stop":
                await Platform.Instances.StopAsync(words[1]);
                return Unknown;
            case "export":
                string name = Path.GetFileNameWithoutExtension(words[1]);
                Discard(Path.Combine(Archives, words[1]));
                await Platform.Data!.ExportAsync(name, Path.Combine(Archives, words[1]));
                return _exported[words[1]] = _held[name];
            case "import":
                await Platform.Data!.ImportAsync(Path.Combine(Archives, words[1]), Path.GetFileNameWithoutExtension(words[1]));
                return _held[Path.GetFileNameWithoutExtension(words[1])] = _exported[words[1]];
            case "settle":
                await _kvm!.ReclaimAsync();
                return Unknown;
            case "restart":
                await Platform.DisposeAsync();
                _platform = Open();
                return Unknown;
            default:
                return await TickAsync(words[1], step);
        }
    }

    private static void Discard(string path)
    {
        if (Directory.Exists(path))
        {
            Directory.Delete(path, recursive: true);
        }
        else
        {
            File.Delete(path);
        }
    }

    private CreateInstanceRequest Request(string guest, params string[] arguments) => new()
    {
        Image = GuestImage.FromFile(Path.Combine(guests ?? Archives, $"{guest}.elf")),
        Args = arguments,
        MemoryMb = guests is null ? null : 16,
        WaitTimeout = Timeout.InfiniteTimeSpan,
    };

    /// <summary>What a guest holds that is about to be kept.</summary>
    private async Task<string> HoldAsync(string instance, string step) =>
        Platform.Instances.Get(instance).State is InstanceState.Running ? await TickAsync(instance, step) : Unknown;

    /// <summary>Has a guest hold something new.</summary>
    private async Task<string> TickAsync(string instance, string step)
    {
        if (Platform.Instances.Get(instance).State is not InstanceState.Running)
        {
            return Unknown;
        }

        await using IInstanceConsole console = Platform.Instances.AttachConsole(instance);
        bool isCounter = Platform.Instances.Get(instance).Volumes.Count == 0;
        await console.Input.WriteAsync(Encoding.ASCII.GetBytes(isCounter ? "tick\n" : $"put who {step}\n"));
        string line;
        do
        {
            line = await ReadLineAsync(console);
        }
        while (!line.StartsWith(isCounter ? "nonce=" : "ok ", StringComparison.Ordinal));

        return isCounter ? string.Join(':', line.Split(' ')[..2].Select(static field => field.Split('=')[1])) : $"kv:{step}";
    }

    private static async Task<string> ReadLineAsync(IInstanceConsole console)
    {
        while (true)
        {
            var read = await console.Output.ReadAsync();
            if (read.Buffer.PositionOf((byte)'\n') is { } end)
            {
                string line = Encoding.UTF8.GetString(read.Buffer.Slice(0, end));
                console.Output.AdvanceTo(read.Buffer.GetPosition(1, end));
                return line;
            }

            console.Output.AdvanceTo(read.Buffer.Start, read.Buffer.End);
            if (read.IsCompleted)
            {
                throw new InvalidOperationException("The guest has ended.");
            }
        }
    }
}

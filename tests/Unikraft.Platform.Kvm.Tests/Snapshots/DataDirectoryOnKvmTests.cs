using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json.Nodes;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using ConsoleSession = Unikraft.Platform.Contracts.ConsoleSession;
using CounterTick = Unikraft.Platform.Contracts.CounterTick;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>A data directory with real machines: what is in it is there for the next platform, and damage stops a guest before it runs.</summary>
[RequiresKvm]
public sealed class DataDirectoryOnKvmTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("data-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [ContractFact]
    public async Task A_checkpoint_of_a_machine_is_loaded_by_the_next_platform_and_carried_to_another_directory()
    {
        CounterTick first;
        string archive = Path.Combine(_folder, "point.tar");
        await using (IUnikraftPlatform before = Open("one"))
        {
            await before.Instances.CreateAsync(Counter("source")).Guarded();
            first = await TickAsync(before, "source");
            await before.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            await before.Data!.ExportAsync("point", archive).Guarded();
        }

        await using (IUnikraftPlatform after = Open("one"))
        {
            Assert.Equal(StopReason.Force | StopReason.Platform, after.Instances.Get("source").StopReason);
            await CheckAsync(after, first);
            await after.Instances.StartAsync("source").Guarded();
        }

        await using IUnikraftPlatform other = Open("other");
        await other.Data!.ImportAsync(archive).Guarded();
        await CheckAsync(other, first);
    }

    [ContractFact]
    public async Task A_flipped_bit_stops_the_guest_before_it_runs()
    {
        await using (IUnikraftPlatform before = Open("one"))
        {
            await before.Instances.CreateAsync(Counter("source")).Guarded();
            await before.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        }

        string layer = Directory.GetFiles(Path.Combine(_folder, "one", "snapshots"), "*.layer").First();
        byte[] content = await File.ReadAllBytesAsync(layer);
        content[content.Length / 2] ^= 4;
        await File.WriteAllBytesAsync(layer, content);

        await using IUnikraftPlatform after = Open("one");
        Guid point = after.Checkpoints.Get("point").Uuid;
        DataDamageException error = await Assert.ThrowsAsync<DataDamageException>(
            () => after.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "point" }));
        Assert.Equal(layer, error.Path);
        Assert.Equal([point], error.Dependents);
        Assert.Equal(layer, Assert.Single(await after.Data!.VerifyAsync()).Path);
        await after.Instances.CreateAsync(Counter("fresh")).Guarded();
    }

    [ContractFact]
    public async Task Of_two_checkpoints_the_one_that_is_sound_is_verified_and_loaded()
    {
        await using (IUnikraftPlatform before = Open("one"))
        {
            foreach (string name in (string[])["sound", "damaged"])
            {
                await before.Instances.CreateAsync(Counter(name)).Guarded();
                await CheckpointAsync(before, name, name);
            }
        }

        string[] layers = Directory.GetFiles(Path.Combine(_folder, "one", "snapshots"), "*.layer");
        string layer;
        await using (IUnikraftPlatform between = Open("one"))
        {
            IReadOnlySet<string> sound = await between.Data!.GetDigestsAsync("sound").Guarded();
            layer = layers.First(file => !sound.Contains($"sha256:{Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(file)))}"));
        }

        byte[] content = await File.ReadAllBytesAsync(layer);
        content[content.Length / 2] ^= 1;
        await File.WriteAllBytesAsync(layer, content);

        await using IUnikraftPlatform after = Open("one");
        List<VerificationProgress> reports = [];
        await after.Data!.VerifyAsync("sound", new ListedProgress(reports)).Guarded();
        Assert.Equal(Enumerable.Range(0, reports[0].Total + 1), reports.Where(static report => report.CurrentTotalBytes == 0).Select(static report => report.Completed));

        // The memory of a machine is read in pieces, and all of it.
        VerificationProgress[] within = [.. reports.Where(static report => report.CurrentTotalBytes > 0)];
        Assert.True(within.Length > 1 && within[^1].CurrentBytes == within[^1].CurrentTotalBytes, string.Join(' ', within));
        Assert.Equal(layer, (await Assert.ThrowsAsync<DataDamageException>(() => after.Data!.VerifyAsync("damaged"))).Path);
        Assert.Equal([after.Checkpoints.Get("damaged").Uuid], Assert.Single(await after.Data!.VerifyAsync()).Dependents);
        await after.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "sound", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
    }

    [ContractFact]
    public async Task A_delta_leaves_out_the_layers_that_the_other_side_has()
    {
        string whole = Path.Combine(_folder, "whole");
        string delta = Path.Combine(_folder, "delta");
        CounterTick second;
        await using IUnikraftPlatform there = Open("there");
        await using (IUnikraftPlatform here = Open("here"))
        {
            await here.Instances.CreateAsync(Counter("source")).Guarded();
            await CheckpointAsync(here, "source", "first");
            await here.Data!.ExportAsync("first", whole).Guarded();
            await there.Data!.ImportAsync(whole).Guarded();
            second = await TickAsync(here, "source");
            await CheckpointAsync(here, "source", "point");
            IReadOnlySet<string> known = await there.Data!.GetDigestsAsync("first").Guarded();
            await here.Data!.ExportAsync("point", delta, known).Guarded();

            // The image and the memory that was there before are left out; a state and what was dirtied are not, nor are the two documents.
            IReadOnlySet<string> needed = await here.Data!.GetDigestsAsync("point").Guarded();
            string[] carried = Blobs(delta);
            Assert.Equal(2, needed.Intersect(known, StringComparer.Ordinal).Count());
            Assert.Equal(2, needed.Except(known, StringComparer.Ordinal).Count());
            Assert.Equal(2 + 2, carried.Length);
            Assert.Empty(carried.Intersect(known, StringComparer.Ordinal));
        }

        await using (IUnikraftPlatform stranger = Open("stranger"))
        {
            CheckpointArchiveException error = await Assert.ThrowsAsync<CheckpointArchiveException>(() => stranger.Data!.ImportAsync(delta));
            Assert.Contains("leaves out", error.Message, StringComparison.Ordinal);
            Assert.Empty(stranger.Checkpoints.List());
        }

        await there.Data!.ImportAsync(delta).Guarded();
        await CheckAsync(there, second);
        Assert.Empty(await there.Data!.VerifyAsync().Guarded());
    }

    [ContractFact]
    public async Task A_machine_with_less_than_a_checkpoint_needs_refuses_it_before_anything_is_written()
    {
        string archive = Path.Combine(_folder, "archive");
        await using (IUnikraftPlatform here = Open("here"))
        {
            await here.Instances.CreateAsync(Counter("source")).Guarded();
            await CheckpointAsync(here, "source", "point");
            await here.Data!.ExportAsync("point", archive).Guarded();
        }

        string index = await File.ReadAllTextAsync(Path.Combine(archive, "index.json"));
        await using IUnikraftPlatform there = Open("there");
        string[] before = FilesOf("there");
        foreach ((string key, Func<string, string> change) in ((string, Func<string, string>)[])
        [
            ("kvm.flavour", static flavour => flavour + "-other"),
            ("cpu.features.7", MissingFeature),
            ("format", static format => $"{int.Parse(format, CultureInfo.InvariantCulture) + 1}"),
        ])
        {
            await File.WriteAllTextAsync(Path.Combine(archive, "index.json"), index);
            Rewrite(archive, key, change);
            CheckpointArchiveException error = await Assert.ThrowsAsync<CheckpointArchiveException>(() => there.Data!.ImportAsync(archive));
            Assert.True(error.IsIncompatible, error.Message);
            Assert.Contains(key, error.Message, StringComparison.Ordinal);
            Assert.Equal(before, FilesOf("there"));
            Assert.Empty(there.Checkpoints.List());
        }

        await File.WriteAllTextAsync(Path.Combine(archive, "index.json"), index);
        await there.Data!.ImportAsync(archive).Guarded();
    }

    // One that this host has not.
    private static string MissingFeature(string features)
    {
        int digit = features.AsSpan().IndexOfAnyExcept('f');
        int value = Convert.ToInt32(features[digit].ToString(), 16);
        return $"{features[..digit]}{value | ((value + 1) & ~value):x}{features[(digit + 1)..]}";
    }

    // The description and what refers to it by its digest.
    private static void Rewrite(string archive, string key, Func<string, string> change)
    {
        JsonNode index = Read("index.json");
        JsonNode entry = index["manifests"]![0]!;
        JsonNode manifest = Read(NameOf((string)entry["digest"]!));
        JsonNode config = Read(NameOf((string)manifest["config"]!["digest"]!));
        config["machine"]![key] = change((string)config["machine"]![key]!);
        Write(config, manifest["config"]!);
        Write(manifest, entry);
        File.WriteAllText(Path.Combine(archive, "index.json"), index.ToJsonString());

        JsonNode Read(string name) => JsonNode.Parse(File.ReadAllBytes(Path.Combine(archive, name)))!;

        static string NameOf(string digest) => Path.Combine("blobs", digest.Replace(':', '/'));

        void Write(JsonNode content, JsonNode descriptor)
        {
            byte[] bytes = System.Text.Encoding.UTF8.GetBytes(content.ToJsonString());
            string digest = $"sha256:{Convert.ToHexStringLower(SHA256.HashData(bytes))}";
            File.WriteAllBytes(Path.Combine(archive, NameOf(digest)), bytes);
            (descriptor["digest"], descriptor["size"]) = (digest, bytes.Length);
        }
    }

    private static string[] Blobs(string archive) => [.. Directory.GetFiles(Path.Combine(archive, "blobs", "sha256")).Select(static file => $"sha256:{Path.GetFileName(file)}")];

    private string[] FilesOf(string name) => [.. Directory.GetFiles(Path.Combine(_folder, name), "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)];

    private static Task<Checkpoint> CheckpointAsync(IUnikraftPlatform platform, string source, string name) => platform.Checkpoints
        .CreateAsync(new CreateCheckpointRequest { From = source, Name = name, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    private static CreateInstanceRequest Counter(string name) => new()
    {
        Name = name,
        Image = GuestImages.Get("counter"),
        MemoryMb = 16,
        Args = ["--period-ms", "0"],
        WaitTimeout = Timeout.InfiniteTimeSpan,
    };

    private static async Task<CounterTick> TickAsync(IUnikraftPlatform platform, NameOrUuid instance)
    {
        await using ConsoleSession console = new(platform.Instances.AttachConsole(instance));
        return await console.TickAsync();
    }

    private static async Task CheckAsync(IUnikraftPlatform platform, CounterTick first)
    {
        Instance clone = await platform.Instances
            .CreateAsync(new CreateInstanceRequest { Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        CounterTick tick = await TickAsync(platform, clone.Uuid);
        Assert.Equal((first.Nonce, first.Tick + 1), (tick.Nonce, tick.Tick));
    }

    private IUnikraftPlatform Open(string name)
    {
        UnikraftPlatformBuilder builder = new();
        builder.Configure(options => options.DataDirectory = Path.Combine(_folder, name));
        builder.UseKvm();
        return builder.Build();
    }

    private sealed class ListedProgress(List<VerificationProgress> reports) : IProgress<VerificationProgress>
    {
        public void Report(VerificationProgress value) => reports.Add(value);
    }
}

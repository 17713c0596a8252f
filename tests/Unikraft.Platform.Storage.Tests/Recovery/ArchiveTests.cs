using System.Formats.Tar;
using System.Text.Json.Nodes;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

public sealed class ArchiveTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("archives-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("archive")]
    [InlineData("archive.tar")]
    public async Task A_checkpoint_is_carried_to_another_host_with_its_lineage(string name)
    {
        string path = Path.Combine(_folder, name);
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        CounterTick first = await here.TickAsync("source");
        await here.CheckpointAsync("source", "base");
        Checkpoint taken = await here.CheckpointAsync("source", "point");
        await here.Platform.Data!.ExportAsync("point", path).Guarded();

        await using DurablePlatform there = new();
        Checkpoint imported = await there.Platform.Data!.ImportAsync(path).Guarded();
        Assert.Equal((taken.Uuid, taken.Name, taken.CreatedAt), (imported.Uuid, imported.Name, imported.CreatedAt));
        Assert.Equal(["base"], there.Checkpoints.GetHistory("point").Select(entry => entry.Name));
        await there.Instances.CreateAsync(new CreateInstanceRequest { Name = "clone", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        CounterTick tick = await there.TickAsync("clone");
        Assert.Equal((first.Nonce, first.Tick + 1), (tick.Nonce, tick.Tick));

        await using DurablePlatform after = there.Kill();
        Assert.Equal(taken.Uuid, after.Checkpoints.Get("point").Uuid);
        Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
        await Assert.ThrowsAsync<NameConflictException>(() => after.Platform.Data!.ImportAsync(path));
        await after.Instances.DeleteAsync("clone").Guarded();
        await after.Checkpoints.DeleteAsync("point").Guarded();
        await after.Platform.Data!.ImportAsync(path, "again").Guarded();
        await using DurablePlatform last = after.Kill();
        Assert.Equal("again", last.Checkpoints.List().Single().Name);
    }

    [Fact]
    public async Task A_delta_leaves_out_what_the_other_side_has()
    {
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        await here.CheckpointAsync("source", "point");
        string whole = Path.Combine(_folder, "whole");
        await here.Platform.Data!.ExportAsync("point", whole).Guarded();
        await using DurablePlatform there = new();
        await there.Platform.Data!.ImportAsync(whole).Guarded();
        IReadOnlySet<string> known = await there.Platform.Data!.GetDigestsAsync("point").Guarded();
        string delta = Path.Combine(_folder, "delta");
        await here.Platform.Data!.ExportAsync("point", delta, known).Guarded();

        Assert.Equal(Blobs(whole) - known.Count, Blobs(delta));
        await using DurablePlatform stranger = new();
        CheckpointArchiveException error = await Assert.ThrowsAsync<CheckpointArchiveException>(() => stranger.Platform.Data!.ImportAsync(delta));
        Assert.Contains("leaves out", error.Message, StringComparison.Ordinal);
        Assert.Empty(stranger.Checkpoints.List());
    }

    /// <summary>The archive lists what it leaves out, too, which needs no room.</summary>
    [Fact]
    public async Task A_delta_needs_room_for_what_is_in_it_alone()
    {
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        await here.CheckpointAsync("source", "point");
        string whole = Path.Combine(_folder, "whole");
        await here.Platform.Data!.ExportAsync("point", whole).Guarded();
        await using DurablePlatform there = new(options: static options => options.MinFreeDiskBytes = 0);
        await there.Platform.Data!.ImportAsync(whole).Guarded();
        string delta = Path.Combine(_folder, "delta");
        await here.Platform.Data!.ExportAsync("point", delta, await there.Platform.Data!.GetDigestsAsync("point").Guarded()).Guarded();
        RewriteManifest(delta, manifest => manifest["layers"]!.AsArray().ToList().ForEach(static layer => layer!["size"] = 1L << 40));
        await there.Instances.CreateAsync(new CreateInstanceRequest { Name = "holder", Checkpoint = "point", Autostart = false }).Guarded();
        await there.Checkpoints.DeleteAsync("point").Guarded();
        there.Disk.Capacity = there.Disk.Used + (8 << 20);

        await there.Platform.Data!.ImportAsync(delta, "again").Guarded();

        Assert.Equal("again", Assert.Single(there.Checkpoints.List()).Name);
        Assert.Empty(await there.Platform.Data!.VerifyAsync().Guarded());
    }

    /// <summary>What an archive says of sizes is nothing to be added up.</summary>
    [Theory]
    [InlineData(-1)]
    [InlineData(long.MinValue)]
    [InlineData(long.MaxValue)]
    public async Task Sizes_that_cannot_be_are_refused_and_nothing_is_imported(long size)
    {
        string path = Path.Combine(_folder, "archive");
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        await here.CheckpointAsync("source", "point");
        await here.Platform.Data!.ExportAsync("point", path).Guarded();
        RewriteManifest(path, manifest =>
        {
            JsonArray layers = manifest["layers"]!.AsArray();
            layers.Add(layers[0]!.DeepClone());
            layers.ToList().ForEach(layer => layer!["size"] = size);
        });
        await using DurablePlatform there = new();
        IReadOnlyList<string> before = there.Disk.Files;

        CheckpointArchiveException error = await Assert.ThrowsAsync<CheckpointArchiveException>(() => there.Platform.Data!.ImportAsync(path));

        Assert.False(error.IsIncompatible);
        Assert.Equal(before, there.Disk.Files);
        Assert.Empty(there.Checkpoints.List());
    }

    [Fact]
    public async Task A_file_without_a_layer_is_refused()
    {
        string path = Path.Combine(_folder, "archive");
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        await here.CheckpointAsync("source", "point");
        await here.Platform.Data!.ExportAsync("point", path).Guarded();
        RewriteManifest(path, static manifest => manifest["layers"]!.AsArray().Clear());
        await using DurablePlatform there = new();
        CheckpointArchiveException error = await Assert.ThrowsAsync<CheckpointArchiveException>(() => there.Platform.Data!.ImportAsync(path));
        Assert.Contains("contradicts itself", error.Message, StringComparison.Ordinal);
    }

    /// <summary>In the middle of a file as well, which may have gigabytes.</summary>
    [Theory]
    [InlineData("archive")]
    [InlineData("archive.tar")]
    public async Task An_export_is_cancelled_at_any_write_and_leaves_nothing(string name)
    {
        SimulatedDisk disk = new();
        disk.MakeDirectory("/elsewhere");
        disk.SyncDirectory("/");
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        await platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
        await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with
        {
            Name = "source",
            Volumes = [new InstanceVolume { Volume = "data", At = "/data" }],
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        await platform.CheckpointAsync("source", "point");
        await platform.Platform.WhenVolumesIdleAsync().Guarded();
        IReadOnlyList<string> before = disk.Files;

        // The platform writes as well, behind everybody's back: logs, and what it has found out.
        AsyncLocal<bool> isExport = new();
        for (int write = 1; ; write++)
        {
            using CancellationTokenSource cancellation = new();
            int writes = 0;
            int at = write;
            disk.Faults = (call, _) =>
            {
                if (call is "Write" && isExport.Value && Interlocked.Increment(ref writes) == at)
                {
                    cancellation.Cancel();
                }

                return null;
            };
            isExport.Value = true;
            Exception? error = await Record.ExceptionAsync(() => platform.Platform.Data!.ExportAsync("point", $"/elsewhere/{name}", known: null, cancellation.Token).Guarded());
            isExport.Value = false;
            disk.Faults = null;
            if (error is null)
            {
                // Beyond the last write, or at it.
                Assert.InRange(write, writes, writes + 1);
                Assert.InRange(writes, 6, int.MaxValue);
                break;
            }

            Assert.IsAssignableFrom<OperationCanceledException>(error);
            Assert.Equal(write, writes);
            Assert.Equal(before, disk.Files);
        }
    }

    [Fact]
    public async Task A_machine_that_cannot_run_it_is_refused_before_anything_is_written()
    {
        string path = Path.Combine(_folder, "archive");
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        await here.CheckpointAsync("source", "point");
        await here.Platform.Data!.ExportAsync("point", path).Guarded();
        Rewrite(path, config => config["machine"] = new JsonObject { ["hypervisor"] = "another" });
        await using DurablePlatform there = new();
        IReadOnlyList<string> before = there.Disk.Files;

        CheckpointArchiveException error = await Assert.ThrowsAsync<CheckpointArchiveException>(() => there.Platform.Data!.ImportAsync(path));

        Assert.True(error.IsIncompatible);
        Assert.Contains("'another'", error.Message, StringComparison.Ordinal);
        Assert.Equal(before, there.Disk.Files);
    }

    [Fact]
    public async Task What_a_snapshot_needs_of_a_machine_goes_with_it_from_host_to_host()
    {
        string first = Path.Combine(_folder, "first");
        string second = Path.Combine(_folder, "second");
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        await here.CheckpointAsync("source", "point");
        await here.Platform.Data!.ExportAsync("point", first).Guarded();
        string? needed = null;
        Rewrite(first, config =>
        {
            config["machine"]!["features"] = "few";
            needed = config["machine"]!.ToJsonString();
        });
        await using DurablePlatform there = new();
        await there.Platform.Data!.ImportAsync(first).Guarded();
        await using DurablePlatform after = there.Kill();
        await after.Instances.CreateAsync(new CreateInstanceRequest { Name = "clone", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await after.CheckpointAsync("clone", "later");
        await after.Platform.Data!.ExportAsync("point", second).Guarded();

        Assert.Equal(needed, ConfigOf(second)["machine"]!.ToJsonString());
        Assert.Null(ConfigOf(second)["checkpoint"]!["machine"]);

        // What was taken there needs what is there.
        string third = Path.Combine(_folder, "third");
        await after.Platform.Data!.ExportAsync("later", third).Guarded();
        Assert.Null(ConfigOf(third)["machine"]!["features"]);
    }

    [Fact]
    public async Task A_directory_that_was_moved_to_a_lesser_host_restores_nothing_of_before_and_works_otherwise()
    {
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        Checkpoint point = await here.CheckpointAsync("source", "point");
        await here.Instances.SuspendAsync("source").Guarded();
        await using DurablePlatform there = New(here, static machine => machine.ContainsKey("features") ? null : "its features are many, and here they are few");

        IncompatibleMachineException error = await Assert.ThrowsAsync<IncompatibleMachineException>(
            () => there.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan })).Guarded();
        Assert.Equal(PlatformErrorCode.IncompatibleMachine, error.Code);
        Assert.Contains("here they are few", error.Message, StringComparison.Ordinal);
        Assert.Contains("Move the data directory", error.Message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<IncompatibleMachineException>(() => there.Instances.StartAsync("source")).Guarded();
        Assert.Empty(await there.Platform.Data!.VerifyAsync().Guarded());
        await there.CreateCounterAsync("other");
        await there.CheckpointAsync("other", "here");
        await there.Instances.CreateAsync(new CreateInstanceRequest { Name = "clone", Checkpoint = "here", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await there.TickAsync("clone");

        // Back where it came from, all of it works.
        await using DurablePlatform back = New(there, static _ => null);
        Assert.Equal(point.Uuid, back.Checkpoints.Get("point").Uuid);
        await back.Instances.CreateAsync(new CreateInstanceRequest { Name = "again", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await back.TickAsync("again");

        static DurablePlatform New(DurablePlatform from, Func<IReadOnlyDictionary<string, string>, string?> missing) =>
            new(from.Disk.AfterKill(), options: null, new InMemory.InMemoryHypervisorOptions(), new TestKit.ManualTimeProvider(), missing: missing);
    }

    [Fact]
    public async Task A_newer_archive_is_refused()
    {
        string path = Path.Combine(_folder, "archive");
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        await here.CheckpointAsync("source", "point");
        await here.Platform.Data!.ExportAsync("point", path).Guarded();
        Rewrite(path, config => config["version"] = 3);
        await using DurablePlatform there = new();
        Assert.Equal(3, (await Assert.ThrowsAsync<DataVersionException>(() => there.Platform.Data!.ImportAsync(path))).Version);
    }

    [Fact]
    public async Task Nothing_of_a_damaged_archive_is_imported()
    {
        string path = Path.Combine(_folder, "archive");
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        await here.CheckpointAsync("source", "point");
        await here.Platform.Data!.ExportAsync("point", path).Guarded();
        await using DurablePlatform there = new();
        IReadOnlyList<string> before = there.Disk.Files;
        Random random = new(17);
        int refused = 0;
        foreach (string file in Directory.GetFiles(path, "*", SearchOption.AllDirectories))
        {
            byte[] content = await File.ReadAllBytesAsync(file);
            for (int i = 0; i < 60; i++)
            {
                byte[] damaged = i % 3 == 0 ? content[..random.Next(content.Length)] : [.. content];
                if (i % 3 != 0)
                {
                    damaged[random.Next(damaged.Length)] ^= (byte)(1 << random.Next(8));
                }

                await File.WriteAllBytesAsync(file, damaged);
                try
                {
                    await there.Platform.Data!.ImportAsync(path, "trial").Guarded();
                    // What is not covered by a digest says nothing of the content: a name, an annotation.
                    await there.Checkpoints.DeleteAsync("trial").Guarded();
                }
                catch (PlatformException error) when (error is CheckpointArchiveException or DataVersionException)
                {
                    refused++;
                }
            }

            await File.WriteAllBytesAsync(file, content);
        }

        Assert.True(refused > 150, $"{refused} refused");
        Assert.DoesNotContain(there.Disk.Files.Except(before, StringComparer.Ordinal), file => file.Contains("/import/", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Ordinary_tools_can_read_the_tar()
    {
        string path = Path.Combine(_folder, "archive.tar");
        await using DurablePlatform here = new();
        await here.CreateCounterAsync("source");
        await here.CheckpointAsync("source", "point");
        await here.Platform.Data!.ExportAsync("point", path).Guarded();
        string extracted = Path.Combine(_folder, "extracted");
        Directory.CreateDirectory(extracted);
        await TarFile.ExtractToDirectoryAsync(path, extracted, overwriteFiles: false);

        JsonNode index = JsonNode.Parse(await File.ReadAllTextAsync(Path.Combine(extracted, "index.json")))!;
        Assert.Equal("1.0.0", (string?)JsonNode.Parse(await File.ReadAllTextAsync(Path.Combine(extracted, "oci-layout")))!["imageLayoutVersion"]);
        Assert.Equal("application/vnd.oci.image.manifest.v1+json", (string?)index["manifests"]![0]!["mediaType"]);
        await using DurablePlatform there = new();
        await there.Platform.Data!.ImportAsync(extracted).Guarded();
        Assert.NotNull(there.Checkpoints.Get("point"));
    }

    private static int Blobs(string archive) => Directory.GetFiles(Path.Combine(archive, "blobs", "sha256")).Length;

    // Changes the config of an archive, and everything that names it.
    private static void Rewrite(string archive, Action<JsonNode> change) => RewriteManifest(archive, manifest =>
    {
        JsonNode config = Read(archive, (string)manifest["config"]!["digest"]!);
        change(config);
        Write(archive, config, manifest["config"]!);
    });

    private static void RewriteManifest(string archive, Action<JsonNode> change)
    {
        JsonNode index = JsonNode.Parse(File.ReadAllText(Path.Combine(archive, "index.json")))!;
        JsonNode manifest = Read(archive, (string)index["manifests"]![0]!["digest"]!);
        change(manifest);
        Write(archive, manifest, index["manifests"]![0]!);
        File.WriteAllText(Path.Combine(archive, "index.json"), index.ToJsonString());
    }

    private static JsonNode ConfigOf(string archive)
    {
        JsonNode index = JsonNode.Parse(File.ReadAllText(Path.Combine(archive, "index.json")))!;
        return Read(archive, (string)Read(archive, (string)index["manifests"]![0]!["digest"]!)["config"]!["digest"]!);
    }

    private static JsonNode Read(string archive, string digest) => JsonNode.Parse(File.ReadAllText(Path.Combine(archive, "blobs", "sha256", digest[7..])))!;

    private static void Write(string archive, JsonNode document, JsonNode descriptor)
    {
        byte[] content = System.Text.Encoding.UTF8.GetBytes(document.ToJsonString());
        string digest = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(content));
        File.WriteAllBytes(Path.Combine(archive, "blobs", "sha256", digest), content);
        descriptor["digest"] = $"sha256:{digest}";
        descriptor["size"] = content.Length;
    }
}

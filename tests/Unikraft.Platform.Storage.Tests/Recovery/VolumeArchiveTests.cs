using System.Diagnostics;
using System.Text.Json.Nodes;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>The volumes of checkpoints: carried to other hosts, and verified.</summary>
public sealed class VolumeArchiveTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("volume-archives-").FullName;
    private int _copies;

    public void Dispose()
    {
        IReadOnlyList<string> problems = LeftImages.FindProblems(_folder);
        Directory.Delete(_folder, recursive: true);
        Assert.Empty(problems);
    }

    [Theory]
    [InlineData("archive", true)]
    [InlineData("archive.tar", true)]
    [InlineData("archive", false)]
    public async Task A_checkpoint_is_carried_to_another_host_with_its_volumes(string name, bool runs)
    {
        string path = Path.Combine(_folder, name);
        await using DurablePlatform here = New("here");
        await CreateCheckpointAsync(here, runs);
        await here.Platform.Data!.ExportAsync("point", path).Guarded();

        await using DurablePlatform there = New("there");
        Checkpoint imported = await there.Platform.Data!.ImportAsync(path).Guarded();
        Assert.Equal(here.Checkpoints.Get("point").Volumes.Select(volume => (volume.At, volume.ReadOnly)), imported.Volumes.Select(volume => (volume.At, volume.ReadOnly)));
        await LoadAsync(there, "one");
        await using DurablePlatform after = Kill(there);
        Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
        await LoadAsync(after, "two");

        // It goes with all it has brought, and can come again.
        await after.Instances.DeleteAsync("one").Guarded();
        await after.Instances.DeleteAsync("two").Guarded();
        await after.Checkpoints.DeleteAsync("point").Guarded();
        await after.Platform.Data!.ImportAsync(path).Guarded();
        await after.Platform.WhenVolumesIdleAsync().Guarded();
        await LoadAsync(after, "three");
    }

    [Fact]
    public async Task A_delta_leaves_out_the_images_that_the_other_side_has()
    {
        string first = Path.Combine(_folder, "first");
        string second = Path.Combine(_folder, "second");
        await using DurablePlatform here = New("here");
        await CreateCheckpointAsync(here, runs: true);
        await here.CheckpointAsync("source", "later");
        await here.Platform.Data!.ExportAsync("point", first).Guarded();
        await using DurablePlatform there = New("there");
        await there.Platform.Data!.ImportAsync(first).Guarded();
        IReadOnlySet<string> known = await there.Platform.Data!.GetDigestsAsync("point").Guarded();
        await here.Platform.Data!.ExportAsync("later", second, known).Guarded();

        Assert.Contains(Directory.GetFiles(Path.Combine(first, "blobs", "sha256")).Select(file => $"sha256:{Path.GetFileName(file)}"), known.Contains);
        Assert.DoesNotContain(Directory.GetFiles(Path.Combine(second, "blobs", "sha256")).Select(file => $"sha256:{Path.GetFileName(file)}"), known.Contains);
        await there.Platform.Data!.ImportAsync(second).Guarded();
        await there.Instances.CreateAsync(new CreateInstanceRequest { Name = "later", Checkpoint = "later", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal("value=source", await AskAsync(there, "later", "get who"));
        Assert.Empty(await there.Platform.Data!.VerifyAsync().Guarded());
    }

    [Fact]
    public async Task An_image_that_is_damaged_is_found_before_a_guest_has_it()
    {
        await using DurablePlatform before = New("here");
        await CreateCheckpointAsync(before, runs: true);
        await CreateKvAsync(before, "other", Owned());
        Checkpoint sound = await before.CheckpointAsync("other", "sound");
        Checkpoint damaged = before.Checkpoints.Get("point");
        await before.Platform.WhenVolumesIdleAsync().Guarded();
        string image = ImageOf(before, damaged);
        string copy = CopyVolumes(before);
        string file = Path.Combine(copy, image);
        byte[] content = await File.ReadAllBytesAsync(file);
        content[^1] ^= 1;
        await File.WriteAllBytesAsync(file, content);
        await using DurablePlatform after = new(before.Disk.AfterKill(), options => options.VolumeDirectory = copy);

        DataDamage found = Assert.Single(await after.Platform.Data!.VerifyAsync().Guarded());
        Assert.Equal(file, found.Path);
        Assert.Contains(damaged.Uuid, found.Dependents);
        Assert.DoesNotContain(sound.Uuid, found.Dependents);
        Assert.Equal(file, (await Assert.ThrowsAsync<DataDamageException>(() => after.Platform.Data!.VerifyAsync("point"))).Path);
        Assert.Equal(
            file,
            (await Assert.ThrowsAsync<DataDamageException>(() => after.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "point" }))).Path);
        await Assert.ThrowsAsync<DataDamageException>(() => after.Platform.Data!.ExportAsync("point", Path.Combine(_folder, "archive")));
        await after.Platform.Data!.VerifyAsync("sound").Guarded();
        await after.Instances.CreateAsync(new CreateInstanceRequest { Name = "sound", Checkpoint = "sound", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.StartsWith("check ok", await AskAsync(after, "sound", "check"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/etc/hostname")]
    [InlineData("../secret")]
    [InlineData("another.qcow2")]
    public async Task An_image_that_names_a_file_of_the_host_is_refused_and_nothing_remains(string backing)
    {
        string path = Path.Combine(_folder, "archive");
        await using DurablePlatform here = New("here");
        await CreateCheckpointAsync(here, runs: true);
        await here.Platform.Data!.ExportAsync("point", path).Guarded();
        Replace(path, image => WithBacking(image, backing));
        await using DurablePlatform there = New("there");
        string[] before = Directory.Exists(there.VolumeDirectory) ? Directory.GetFiles(there.VolumeDirectory!) : [];

        CheckpointArchiveException error = await Assert.ThrowsAsync<CheckpointArchiveException>(() => there.Platform.Data!.ImportAsync(path)).Guarded();

        Assert.Contains("not based on", error.Message, StringComparison.Ordinal);
        Assert.Empty(there.Checkpoints.List());
        await there.Platform.WhenVolumesIdleAsync().Guarded();
        Assert.DoesNotContain(Directory.GetFiles(there.VolumeDirectory!).Except(before, StringComparer.Ordinal), file => file.EndsWith(".qcow2", StringComparison.Ordinal));
        await using DurablePlatform after = Kill(there);
        Assert.Empty(after.Checkpoints.List());
        Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
    }

    [Theory]
    [InlineData("archive", DiskImageFormat.Raw)]
    [InlineData("archive.tar", DiskImageFormat.Qcow2)]
    public async Task A_volume_that_is_based_on_a_file_elsewhere_is_carried_with_what_that_holds(string name, DiskImageFormat format)
    {
        string path = Path.Combine(_folder, name);
        string file = Path.Combine(_folder, $"base.{format}");
        await using DurablePlatform here = New("here");
        await MakeBaseAsync(here, file, format);
        await here.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "over", BasedOn = new DiskImageFile(file, format) }).Guarded();
        await CreateKvAsync(here, "source", new InstanceVolume { Volume = "over", At = "/data" });
        Assert.Equal("value=beneath", await AskAsync(here, "source", "get base"));
        Assert.Equal("ok 2", await AskAsync(here, "source", "put who both"));
        await here.CheckpointAsync("source", "point");
        string[] before = Directory.GetFiles(here.VolumeDirectory!);
        await here.Platform.Data!.ExportAsync("point", path).Guarded();
        await here.Platform.Data!.ExportAsync("point", path + ".again").Guarded();
        Assert.Equal(before.Order(StringComparer.Ordinal), Directory.GetFiles(here.VolumeDirectory!).Order(StringComparer.Ordinal));

        // Where it goes there is no such file.
        File.Move(file, file + ".away");
        try
        {
            await ImportElsewhereAsync(path);
        }
        finally
        {
            File.Move(file + ".away", file);
        }
    }

    private async Task ImportElsewhereAsync(string path)
    {
        await using DurablePlatform there = New("there");
        await there.Platform.Data!.ImportAsync(path).Guarded();
        await LoadAsync(there, "one");
        Assert.Equal("value=beneath", await AskAsync(there, "one", "get base"));
        Assert.Empty(await there.Platform.Data!.VerifyAsync().Guarded());
        IReadOnlySet<string> known = await there.Platform.Data!.GetDigestsAsync("point").Guarded();
        Assert.Contains(Directory.GetFiles(Path.Combine(path + ".again", "blobs", "sha256")).Select(blob => $"sha256:{Path.GetFileName(blob)}"), digest => known.Contains(digest) && new FileInfo(Path.Combine(path + ".again", "blobs", "sha256", digest[7..])).Length > 64 << 10);
    }

    // What a guest has written to a volume, as a file of its own.
    private static async Task MakeBaseAsync(DurablePlatform platform, string file, DiskImageFormat format)
    {
        const int Size = 8 << 20;
        if (format == DiskImageFormat.Raw)
        {
            using FileStream raw = File.Create(file);
            raw.SetLength(Size);
        }
        else
        {
            using ImageFile image = ImageFile.Create(file);
            Unikraft.Platform.Volumes.Qcow2.Qcow2Image.Create(image, Size);
        }

        await platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "first", BasedOn = new DiskImageFile(file, format) }).Guarded();
        await CreateKvAsync(platform, "writer", new InstanceVolume { Volume = "first", At = "/data" });
        Assert.Equal("ok 1", await AskAsync(platform, "writer", "put base beneath"));
        await platform.Instances.DeleteAsync("writer").Guarded();
        await platform.Platform.WhenVolumesIdleAsync().Guarded();
        string overlay = Directory.GetFiles(platform.VolumeDirectory!, "*.qcow2").Single();
        byte[] content = new byte[Size];
        await using (VolumeDisk disk = await VolumeDisk.OpenAsync(overlay, isReadOnly: true, outside: [file]))
        {
            await disk.ReadAsync(0, content);
        }

        await platform.Platform.Volumes.DeleteAsync("first").Guarded();
        File.Delete(file);
        if (format == DiskImageFormat.Raw)
        {
            await File.WriteAllBytesAsync(file, content);
            return;
        }

        await using VolumeDisk made = await VolumeDisk.CreateAsync(file, Size);
        await made.WriteAsync(0, content.AsMemory(0, 1 << 20));
        await made.FlushAsync();
    }

    private static InstanceVolume Owned() => new() { SizeMb = 8, Filesystem = VolumeFilesystem.None, At = "/data" };

    private static async Task CreateCheckpointAsync(DurablePlatform platform, bool runs)
    {
        await CreateKvAsync(platform, "source", Owned());
        Assert.Equal("ok 1", await AskAsync(platform, "source", "put who both"));
        if (!runs)
        {
            await platform.Instances.StopAsync("source").Guarded();
        }

        await platform.CheckpointAsync("source", "point");
        if (runs)
        {
            Assert.Equal("ok 2", await AskAsync(platform, "source", "put who source"));
        }
    }

    private static async Task LoadAsync(DurablePlatform platform, string name)
    {
        await platform.Instances.CreateAsync(new CreateInstanceRequest { Name = name, Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal("value=both", await AskAsync(platform, name, "get who"));
        Assert.StartsWith("check ok", await AskAsync(platform, name, "check"), StringComparison.Ordinal);
    }

    private static Task<Instance> CreateKvAsync(DurablePlatform platform, string name, params InstanceVolume[] volumes) => platform.Instances
        .CreateAsync(DurablePlatform.Request("kv") with { Name = name, Volumes = volumes, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    private static async Task<string> AskAsync(DurablePlatform platform, NameOrUuid instance, string command)
    {
        await using ConsoleSession console = new(platform.Instances.AttachConsole(instance));
        await console.WriteLineAsync(command);
        string? line;
        do
        {
            line = await console.ReadLineAsync();
        }
        while (line?.StartsWith("kv ", StringComparison.Ordinal) is true);
        return line ?? "";
    }

    // The top image of the volume of a checkpoint, as the journal has it.
    private static string ImageOf(DurablePlatform platform, Checkpoint checkpoint)
    {
        using FileStream journal = new(Path.Combine(platform.VolumeDirectory!, "volumes.journal"), FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using StreamReader reader = new(journal);
        Guid volume = checkpoint.Volumes.Single().Uuid;
        return reader.ReadToEnd().TrimEnd('\0').Split('\n').Skip(1).Where(line => line.Length > 0)
            .SelectMany(line => JsonNode.Parse(line[line.IndexOf('{', StringComparison.Ordinal)..])!["Set"] as JsonArray ?? [])
            .Last(record => (Guid)record!["Uuid"]! == volume)!["Top"]!.GetValue<string>();
    }

    private static byte[] WithBacking(byte[] image, string backing)
    {
        byte[] name = System.Text.Encoding.UTF8.GetBytes(backing);
        byte[] changed = [.. image];
        int at = (int)System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(changed.AsSpan(8));
        if (at == 0)
        {
            // It had none: a format for the backing file, the end of the extensions, and the name.
            at = 104 + 16 + 8;
            changed.AsSpan(104, 24).Clear();
            System.Buffers.Binary.BinaryPrimitives.WriteUInt32BigEndian(changed.AsSpan(104), 0xe279_2aca);
            System.Buffers.Binary.BinaryPrimitives.WriteInt32BigEndian(changed.AsSpan(108), 3);
            "raw"u8.CopyTo(changed.AsSpan(112));
            System.Buffers.Binary.BinaryPrimitives.WriteInt64BigEndian(changed.AsSpan(8), at);
        }

        name.CopyTo(changed.AsSpan(at));
        System.Buffers.Binary.BinaryPrimitives.WriteInt32BigEndian(changed.AsSpan(16), name.Length);
        return changed;
    }

    // Changes one image of a volume, and everything that names it by its digest.
    private static void Replace(string archive, Func<byte[], byte[]> change)
    {
        JsonNode index = Read(Path.Combine(archive, "index.json"));
        string manifestDigest = (string)index["manifests"]![0]!["digest"]!;
        JsonNode manifest = Read(BlobOf(archive, manifestDigest));
        JsonNode config = Read(BlobOf(archive, (string)manifest["config"]!["digest"]!));
        JsonNode image = config["volumes"]![0]!["images"]![0]!;
        string before = (string)image["sha256"]!;
        byte[] changed = change(File.ReadAllBytes(BlobOf(archive, $"sha256:{before}")));
        string after = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(changed));
        File.WriteAllBytes(BlobOf(archive, $"sha256:{after}"), changed);
        image["sha256"] = after;
        manifest["layers"]!.AsArray().First(layer => string.Equals((string?)layer!["digest"], $"sha256:{before}", StringComparison.Ordinal))!["digest"] = $"sha256:{after}";
        Write(archive, config, manifest["config"]!);
        Write(archive, manifest, index["manifests"]![0]!);
        File.WriteAllText(Path.Combine(archive, "index.json"), index.ToJsonString());
    }

    private static JsonNode Read(string path) => JsonNode.Parse(File.ReadAllText(path))!;

    private static string BlobOf(string archive, string digest) => Path.Combine(archive, "blobs", "sha256", digest[7..]);

    private static void Write(string archive, JsonNode document, JsonNode descriptor)
    {
        byte[] content = System.Text.Encoding.UTF8.GetBytes(document.ToJsonString());
        string digest = $"sha256:{Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(content))}";
        File.WriteAllBytes(BlobOf(archive, digest), content);
        descriptor["digest"] = digest;
        descriptor["size"] = content.Length;
    }

    private DurablePlatform New(string name) => new(options: options => options.VolumeDirectory = Path.Combine(_folder, name));

    // What the next process finds when this one is killed now.
    private DurablePlatform Kill(DurablePlatform platform)
    {
        string copy = CopyVolumes(platform);
        return new DurablePlatform(platform.Disk.AfterKill(), options => options.VolumeDirectory = copy);
    }

    private string CopyVolumes(DurablePlatform platform)
    {
        string to = Directory.CreateDirectory(Path.Combine(_folder, $"copy{++_copies}")).FullName;
        // A tool of its own, which does not mind the locks on files that are open.
        using Process copy = Process.Start("cp", ["-R", $"{platform.VolumeDirectory}/.", to]);
        copy.WaitForExit();
        Assert.Equal(0, copy.ExitCode);
        return to;
    }
}

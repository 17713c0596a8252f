using System.Formats.Tar;
using System.IO.Compression;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>Data directories as killed processes of earlier versions have left them: eng/old-data/make says how they were made.</summary>
public sealed class UpgradeTests : IDisposable
{
    private const string Counter = "nonce=";

    private readonly string _folder = Directory.CreateTempSubdirectory("upgrades-").FullName;

    /// <summary>One of each version, by the versions of the directory and of its journal of volumes.</summary>
    public static TheoryData<string> Versions => [.. Files];

    private static IEnumerable<string> Files =>
        Directory.EnumerateFiles(Repository.PathOf("tests/Unikraft.Platform.Storage.Tests/OldData"), "*.tar.gz").Select(static file => Path.GetFileName(file)).Order(StringComparer.Ordinal);

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void There_is_one_of_each_version()
    {
        string[] versions = [.. Files.Select(static file => file.Split('-')[1]).Distinct(StringComparer.Ordinal)];
        Assert.Equal(Enumerable.Range(1, Manifest.CurrentVersion).Select(static version => $"{version}"), versions);
    }

    [Theory]
    [MemberData(nameof(Versions))]
    public async Task A_directory_of_an_earlier_version_is_all_there_and_again_when_it_was_upgraded(string file)
    {
        string directory = await UnpackAsync(file);
        Assert.Equal($"unikraft-platform-data {file.Split('-')[1]}", (await File.ReadAllLinesAsync(Path.Combine(directory, Manifest.Name)))[0]);
        string nonce;
        await using (UnikraftPlatform platform = Open(directory))
        {
            nonce = await CheckAsync(platform);
        }

        Assert.Equal($"unikraft-platform-data {Manifest.CurrentVersion}", (await File.ReadAllLinesAsync(Path.Combine(directory, Manifest.Name)))[0]);
        Assert.Empty(await LeftImages.FindProblemsAsync(directory));
        await using (UnikraftPlatform again = Open(directory))
        {
            Assert.Equal(nonce, await CheckAsync(again));
        }

        // And what is done to it from now on is kept, and what is deleted is gone.
        await using (UnikraftPlatform changed = Open(directory))
        {
            await changed.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = await LoadAsync(changed, "later"), Name = "new", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            await changed.Instances.StartAsync("asleep").Guarded();
            Assert.Equal(5, (await TickAsync(changed, "asleep")).Tick);
            await changed.Checkpoints.DeleteAsync("point").Guarded();
            await changed.Checkpoints.DeleteAsync("both").Guarded();
        }

        await using UnikraftPlatform last = Open(directory);
        Assert.Equal(["base", "later", "new"], last.Checkpoints.List().Select(static checkpoint => checkpoint.Name).Order(StringComparer.Ordinal));
        Assert.Empty(await last.Data!.VerifyAsync().Guarded());
    }

    /// <summary>The directory, or the journal of its volumes, is of a version that is not known yet.</summary>
    [Theory]
    [MemberData(nameof(Versions))]
    public async Task A_newer_number_is_refused_and_nothing_is_touched(string file)
    {
        string directory = await UnpackAsync(file);
        string manifest = Path.Combine(directory, Manifest.Name);
        byte[] sound = await File.ReadAllBytesAsync(manifest);
        await File.WriteAllBytesAsync(manifest, (Manifest.Decode(sound, directory) with { Version = Manifest.CurrentVersion + 1 }).Encode());
        Dictionary<string, byte[]> before = Read(directory);

        DataVersionException error = Assert.Throws<DataVersionException>(() => Open(directory));

        Assert.Equal(Manifest.CurrentVersion + 1, error.Version);
        Assert.Equal(before, Read(directory));
        await File.WriteAllBytesAsync(manifest, sound);
        await using UnikraftPlatform platform = Open(directory);
        await CheckAsync(platform);
    }

    private static async Task<string> CheckAsync(UnikraftPlatform platform)
    {
        Assert.Empty(platform.Data!.DamageFound);
        Assert.Empty(await platform.Data!.VerifyAsync().Guarded());
        Assert.Equal(
            ["asleep", "clone", "loaded", "source", "stopped", "worker"],
            platform.Instances.List().Select(static instance => instance.Name).Order(StringComparer.Ordinal));
        Assert.Equal(["base", "both", "later", "point"], platform.Checkpoints.List().Select(static checkpoint => checkpoint.Name).Order(StringComparer.Ordinal));
        Assert.Equal(["golden"], platform.Templates.List().Select(static template => template.Name));
        Assert.Equal(["copy", "data"], platform.Volumes.List().Select(static volume => volume.Name).OfType<string>().Order(StringComparer.Ordinal));
        Assert.Equal(["model"], platform.Volumes.ListTemplates().Select(static volume => volume.Name).OfType<string>());

        Instance source = platform.Instances.Get("source");
        Assert.Equal((RestartPolicy.Always, "first second", "here"), (source.RestartPolicy, string.Join(' ', source.Tags), source.Env["PLACE"]));
        Assert.True(platform.Instances.Get("loaded").DeleteLock);
        Instance stopped = platform.Instances.Get("stopped");
        Assert.Equal((InstanceState.Stopped, TimeSpan.FromDays(3650)), (stopped.State, stopped.Autokill?.Time));
        Checkpoint first = platform.Checkpoints.Get("base");
        Assert.Equal(("kept", true, TimeSpan.FromDays(3650)), (Assert.Single(first.Tags), first.DeleteLock, first.Autokill?.Time));
        Assert.Equal(["base"], platform.Checkpoints.GetHistory("point").Select(static entry => entry.Name));
        Assert.Equal(["base"], platform.Checkpoints.GetHistory("later").Select(static entry => entry.Name));
        Assert.Equal(TimeSpan.FromDays(3650), platform.Templates.Get("golden").Autokill?.Time);
        Volume data = platform.Volumes.Get("data");
        Assert.Equal(("disk", true, 1, null), (Assert.Single(data.Tags), data.DeleteLock, data.SizeMb, data.Error));

        // What ran when the checkpoints were taken runs on.
        CounterTick ofBase = await TickAsync(platform, await LoadAsync(platform, "base"));
        CounterTick ofPoint = await TickAsync(platform, await LoadAsync(platform, "point"));
        CounterTick ofLater = await TickAsync(platform, await LoadAsync(platform, "later"));
        Assert.Equal((2, 4, 3), (ofBase.Tick, ofPoint.Tick, ofLater.Tick));
        Assert.Equal((ofBase.Nonce, ofBase.Nonce), (ofPoint.Nonce, ofLater.Nonce));
        Instance clone = await platform.Instances.CreateAsync(new CreateInstanceRequest { Template = "golden", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal(2, (await TickAsync(platform, clone.Uuid)).Tick);
        Assert.Equal("value=blue", await AskAsync(platform, await LoadAsync(platform, "both"), "get colour", "value="));
        await platform.Instances.StartAsync("worker").Guarded();
        Assert.Equal("value=red", await AskAsync(platform, "worker", "get colour", "value="));
        Assert.Equal("value=3", await AskAsync(platform, "worker", "get size", "value="));
        Assert.Contains("tick=3", platform.Instances.ReadLog("source").Text, StringComparison.Ordinal);
        await platform.Instances.StopAsync("worker").Guarded();
        foreach (Instance made in platform.Instances.List().Where(instance => instance.CreatedAt >= Start))
        {
            await platform.Instances.DeleteAsync(made.Uuid).Guarded();
        }

        return ofBase.Nonce;
    }

    private static async Task<NameOrUuid> LoadAsync(UnikraftPlatform platform, string checkpoint) =>
        (await platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = checkpoint, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded()).Uuid;

    private static async Task<CounterTick> TickAsync(UnikraftPlatform platform, NameOrUuid instance) => CounterTick.Parse(await AskAsync(platform, instance, "tick", Counter));

    private static async Task<string> AskAsync(UnikraftPlatform platform, NameOrUuid instance, string line, string prefix)
    {
        await using ConsoleSession console = new(platform.Instances.AttachConsole(instance));
        await console.WriteLineAsync(line);
        return await console.ReadLineAsync(prefix);
    }

    private static Dictionary<string, byte[]> Read(string directory) =>
        Directory.EnumerateFiles(directory, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal).ToDictionary(file => file, File.ReadAllBytes, StringComparer.Ordinal);

    /// <summary>After all of them were made.</summary>
    private static DateTimeOffset Start => new(2027, 1, 1, 0, 0, 0, TimeSpan.Zero);

    private static UnikraftPlatform Open(string directory) => new(
        new PlatformOptions { DataDirectory = directory, MinFreeDiskBytes = 0 },
        new ManualTimeProvider(Start),
        new ListLoggerFactory(),
        static context => new InMemoryHypervisor(new InMemoryHypervisorOptions(), context));

    private async Task<string> UnpackAsync(string file)
    {
        await using FileStream packed = File.OpenRead(Repository.PathOf($"tests/Unikraft.Platform.Storage.Tests/OldData/{file}"));
        await using GZipStream tar = new(packed, CompressionMode.Decompress);
        await TarFile.ExtractToDirectoryAsync(tar, _folder, overwriteFiles: false);
        return Path.Combine(_folder, "data");
    }
}

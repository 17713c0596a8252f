using Unikraft.Platform.CrashChild;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using ConsoleSession = Unikraft.Platform.Contracts.ConsoleSession;
using CounterTick = Unikraft.Platform.Contracts.CounterTick;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Each file of a data directory with real machines and their volumes is on sectors that cannot be read, one after the other.</summary>
/// <remarks>Not in the SVM lab: hundreds of machines on damaged files, of which KVM knows nothing.</remarks>
[RequiresKvm]
[Trait("Lab", "TooLong")]
public sealed class UnreadableOnKvmTests : IDisposable
{
    private static readonly Load[] Loads =
    [
        new("checkpoint first", static platform => platform.Checkpoints.Get("first").Uuid, static platform => CountAsync(platform, new CreateInstanceRequest { Checkpoint = "first" })),
        new("checkpoint second", static platform => platform.Checkpoints.Get("second").Uuid, static platform => CountAsync(platform, new CreateInstanceRequest { Checkpoint = "second" })),
        new("template base", static platform => platform.Templates.Get("base").Uuid, static platform => CountAsync(platform, new CreateInstanceRequest { Template = "base" })),
        new("instance suspended", static platform => platform.Instances.Get("suspended").Uuid, ResumeAsync),
        new("instance source", static platform => platform.Instances.Get("source").Uuid, BootAsync),
        new("checkpoint kept", static platform => platform.Checkpoints.Get("kept").Uuid, static platform => AskAsync(platform, new CreateInstanceRequest { Checkpoint = "kept" })),
        new("volume data", static platform => platform.Volumes.Get("data").Uuid, static platform => AskAsync(platform, Kv("data"))),
        new("volume other", static platform => platform.Volumes.Get("other").Uuid, static platform => AskAsync(platform, Kv("other"))),
    ];

    private readonly string _folder = Directory.CreateTempSubdirectory("unreadable-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [ContractFact]
    public async Task A_file_that_cannot_be_read_is_damage_to_what_needs_it_and_to_nothing_else()
    {
        string sound = Path.Combine(_folder, "sound");
        await MakeAsync(sound);
        string[] files = [.. Directory.GetFiles(sound, "*", SearchOption.AllDirectories).Select(file => Path.GetRelativePath(sound, file)).Where(static file => Path.GetFileName(file) is not "lock").Order(StringComparer.Ordinal)];
        Dictionary<string, string> expected = new(StringComparer.Ordinal);
        string used = Copy(sound, "expected");
        await using (IUnikraftPlatform platform = UnreadablePlatform.Open(used))
        {
            Assert.Empty(await platform.Data!.VerifyAsync().Guarded());
            foreach (Load load in Loads)
            {
                expected.Add(load.Name, await load.Ask(platform));
            }
        }

        Assert.Empty(await LeftImages.FindProblemsAsync(sound).Guarded());
        Assert.Empty(await LeftImages.FindProblemsAsync(used).Guarded());
        HashSet<string> refused = new(StringComparer.Ordinal);
        HashSet<string> unnamed = new(StringComparer.Ordinal);
        HashSet<string> damaged = new(StringComparer.Ordinal);
        for (int number = 0; number < files.Length; number++)
        {
            string directory = Copy(sound, $"{number}");
            string file = Path.Combine(directory, files[number]);
            IUnikraftPlatform platform;
            try
            {
                platform = UnreadablePlatform.Open(directory, file);
            }
            catch (DataDamageException error)
            {
                Assert.Contains(file, error.ToString(), StringComparison.Ordinal);
                refused.Add(files[number]);
                continue;
            }

            await using (platform.ConfigureAwait(false))
            {
                DataDamage[] told = [.. platform.Data!.DamageFound, .. await platform.Data!.VerifyAsync().Guarded()];
                Assert.All(told, damage => Assert.Contains(file, damage.ToString(), StringComparison.Ordinal));
                if (told.Length == 0)
                {
                    unnamed.Add(files[number]);
                }

                foreach (Load load in Loads)
                {
                    try
                    {
                        string answer = await load.Ask(platform);
                        Assert.True(string.Equals(expected[load.Name], answer, StringComparison.Ordinal), $"{file}: {load.Name} says {answer}");
                    }
                    catch (DataDamageException error)
                    {
                        Assert.Contains(file, error.ToString(), StringComparison.Ordinal);
                        Assert.Contains(told, damage => damage.Dependents.Contains(load.Resource(platform)));
                        damaged.Add(load.Name);
                    }
                }
            }

            Directory.Delete(directory, recursive: true);
        }

        // A start is refused without what says what there is. What is kept in case another file is damaged is not read.
        Assert.Contains("volumes/volumes.journal", refused);
        Assert.All(refused.Where(static file => !file.EndsWith("/volumes.journal", StringComparison.Ordinal)), static file => Assert.StartsWith("metadata/", file, StringComparison.Ordinal));
        Assert.Equal(["metadata/0000000001.journal", "metadata/0000000001.snapshot", "volumes/volumes.journal.copy"], unnamed.Order(StringComparer.Ordinal));
        Assert.Equal(expected.Keys.Order(StringComparer.Ordinal), damaged.Order(StringComparer.Ordinal));
    }

    private static async Task MakeAsync(string directory)
    {
        await using (IUnikraftPlatform platform = UnreadablePlatform.Open(directory))
        {
            await platform.Instances.CreateAsync(Counter("source")).Guarded();
            await TickAsync(platform, "source");
            await CheckpointAsync(platform, "source", "first");
            await TickAsync(platform, "source");
            await CheckpointAsync(platform, "source", "second");
            await platform.Instances.CreateAsync(Counter("suspended")).Guarded();
            await TickAsync(platform, "suspended");
            await platform.Instances.SuspendAsync("suspended").Guarded();
            await platform.Instances.CreateAsync(Counter("base")).Guarded();
            await TickAsync(platform, "base");
            await platform.Templates.ConvertAsync("base").Guarded();
            foreach (string volume in (string[])["data", "other"])
            {
                await platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = volume, SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
                await platform.Instances.CreateAsync(Kv(volume) with { Name = volume }).Guarded();
                await SayAsync(platform, volume, $"put who {volume}");
            }

            await CheckpointAsync(platform, "data", "kept");
            await SayAsync(platform, "data", "put who later");
            foreach (string instance in (string[])["source", "data", "other"])
            {
                await platform.Instances.StopAsync(instance).Guarded();
                if (instance is not "source")
                {
                    await platform.Instances.DeleteAsync(instance).Guarded();
                }
            }
        }

        // What volumes began with is in two files from the second start on.
        await UnreadablePlatform.Open(directory).DisposeAsync();
    }

    private static CreateInstanceRequest Counter(string name) => new()
    {
        Name = name,
        Image = GuestImages.Get("counter"),
        MemoryMb = 16,
        Args = ["--period-ms", "0", "--arena-mb", "1"],
        WaitTimeout = Timeout.InfiniteTimeSpan,
    };

    private static CreateInstanceRequest Kv(string volume) => new()
    {
        Image = GuestImages.Get("kv"),
        MemoryMb = 16,
        Volumes = [new InstanceVolume { Volume = volume, At = "/data" }],
        WaitTimeout = Timeout.InfiniteTimeSpan,
    };

    private static Task<Checkpoint> CheckpointAsync(IUnikraftPlatform platform, string source, string name) => platform.Checkpoints
        .CreateAsync(new CreateCheckpointRequest { From = source, Name = name, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    private static async Task<CounterTick> TickAsync(IUnikraftPlatform platform, NameOrUuid instance)
    {
        await using ConsoleSession console = new(platform.Instances.AttachConsole(instance));
        return await console.TickAsync();
    }

    private static async Task<string> SayAsync(IUnikraftPlatform platform, NameOrUuid instance, string command)
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

    private static async Task<string> CountAsync(IUnikraftPlatform platform, CreateInstanceRequest request)
    {
        Instance made = await platform.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        CounterTick tick = await TickAsync(platform, made.Uuid);
        await platform.Instances.DeleteAsync(made.Uuid).Guarded();
        return $"{tick.Nonce} {tick.Tick}";
    }

    private static async Task<string> ResumeAsync(IUnikraftPlatform platform)
    {
        await platform.Instances.StartAsync("suspended").Guarded();
        CounterTick tick = await TickAsync(platform, "suspended");
        return $"{tick.Nonce} {tick.Tick}";
    }

    // One that boots has another nonce each time.
    private static async Task<string> BootAsync(IUnikraftPlatform platform)
    {
        await platform.Instances.StartAsync("source").Guarded();
        return $"{(await TickAsync(platform, "source")).Tick}";
    }

    private static async Task<string> AskAsync(IUnikraftPlatform platform, CreateInstanceRequest request)
    {
        Instance made = await platform.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        string answer = $"{await SayAsync(platform, made.Uuid, "get who")} {await SayAsync(platform, made.Uuid, "check")}";
        await platform.Instances.DeleteAsync(made.Uuid).Guarded();
        return answer;
    }

    private string Copy(string from, string name)
    {
        string to = Path.Combine(_folder, name);
        foreach (string file in Directory.GetFiles(from, "*", SearchOption.AllDirectories))
        {
            string copy = Path.Combine(to, Path.GetRelativePath(from, file));
            Directory.CreateDirectory(Path.GetDirectoryName(copy)!);
            File.Copy(file, copy);
        }

        return to;
    }

    /// <param name="Name">What is loaded.</param>
    /// <param name="Resource">The resource.</param>
    /// <param name="Ask">Makes a guest of it, and says what that answers.</param>
    private sealed record Load(string Name, Func<IUnikraftPlatform, Guid> Resource, Func<IUnikraftPlatform, Task<string>> Ask);
}

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
}

using Unikraft.Platform.Contracts;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>A platform on the in-memory backend whose data directory is on a simulated disk, under virtual time.</summary>
internal sealed class DurablePlatform : IAsyncDisposable
{
    public const string Root = "/data";

    private InMemoryHypervisor? _hypervisor;

    public DurablePlatform(
        SimulatedDisk? disk = null,
        Action<PlatformOptions>? options = null,
        Action<InMemoryHypervisorOptions>? backend = null,
        DateTimeOffset? start = null)
        : this(disk ?? new SimulatedDisk(), options, Configure(backend), new ManualTimeProvider(start))
    {
    }

    public DurablePlatform(SimulatedDisk disk, Action<PlatformOptions>? options, InMemoryHypervisorOptions backend, ManualTimeProvider time)
    {
        (Disk, Time) = (disk, time);
        PlatformOptions platformOptions = new() { DataDirectory = Root };
        options?.Invoke(platformOptions);
        VolumeDirectory = platformOptions.VolumeDirectory;
        Platform = new UnikraftPlatform(
            platformOptions,
            Time,
            Logs,
            context => _hypervisor = new InMemoryHypervisor(backend, context, Disk),
            Disk);
    }

    public SimulatedDisk Disk { get; }

    public string? VolumeDirectory { get; }

    public ManualTimeProvider Time { get; }

    public ListLoggerFactory Logs { get; } = new();

    public UnikraftPlatform Platform { get; }

    public IInstanceManager Instances => Platform.Instances;

    public ICheckpointStore Checkpoints => Platform.Checkpoints;

    public ITemplateStore Templates => Platform.Templates;

    /// <summary>Whether something was found that is not as it was written.</summary>
    public bool HasWarned => Logs.Records.Any(record => record.Id.Id is 1401 or 1402 or 1403 or 1407);

    public (int Machines, int Snapshots) Leaks => (_hypervisor!.Machines, _hypervisor.Snapshots);

    public static CreateInstanceRequest Request(string image, params string[] args) =>
        new() { Image = GuestImage.FromFile($"/images/{image}.elf"), Args = args };

    public Task<Instance> CreateCounterAsync(string? name = null) => Instances
        .CreateAsync(Request("counter", "--period-ms", "0") with { Name = name, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    public Task<Checkpoint> CheckpointAsync(NameOrUuid from, string? name = null) => Checkpoints
        .CreateAsync(new CreateCheckpointRequest { From = from, Name = name, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    public async Task<CounterTick> TickAsync(NameOrUuid instance)
    {
        await using ConsoleSession console = new(Instances.AttachConsole(instance));
        return await console.TickAsync();
    }

    /// <summary>What the next process finds when this one is killed now.</summary>
    public DurablePlatform Kill(Action<PlatformOptions>? options = null, DateTimeOffset? start = null) => new(Disk.AfterKill(), options, start: start);

    private static InMemoryHypervisorOptions Configure(Action<InMemoryHypervisorOptions>? configure)
    {
        InMemoryHypervisorOptions options = new();
        configure?.Invoke(options);
        return options;
    }

    public async ValueTask DisposeAsync()
    {
        await Platform.DisposeAsync().Guarded();
        Assert.Equal((0, 0), Leaks);
        if (VolumeDirectory is not null)
        {
            Assert.Empty(await LeftImages.FindProblemsAsync(VolumeDirectory).Guarded());
        }
    }
}

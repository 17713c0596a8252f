using System.Collections.Concurrent;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>A platform on the in-memory backend whose data directory is on a simulated disk, under virtual time.</summary>
internal sealed class DurablePlatform : IAsyncDisposable
{
    public const string Root = "/data";

    private readonly ConcurrentDictionary<Guid, IReadOnlyList<MachineDisk>> _machineDisks = [];
    private InMemoryHypervisor? _hypervisor;

    public DurablePlatform(
        SimulatedDisk? disk = null,
        Action<PlatformOptions>? options = null,
        Action<InMemoryHypervisorOptions>? backend = null,
        DateTimeOffset? start = null)
        : this(disk ?? new SimulatedDisk(), options, Configure(backend), new ManualTimeProvider(start))
    {
    }

    /// <param name="disk">The disk of the data directory.</param>
    /// <param name="options">Options.</param>
    /// <param name="backend">Options of the backend.</param>
    /// <param name="time">The clock.</param>
    /// <param name="isAllSimulated">Whether archives are on the same disk, and whether names can be taken to it.</param>
    /// <param name="missing">What is missing here of the machine that a snapshot needs, on another host; <see langword="null"/> on the usual one.</param>
    public DurablePlatform(
        SimulatedDisk disk,
        Action<PlatformOptions>? options,
        InMemoryHypervisorOptions backend,
        ManualTimeProvider time,
        bool isAllSimulated = false,
        Func<IReadOnlyDictionary<string, string>, string?>? missing = null)
    {
        (Disk, Time) = (disk, time);
        PlatformOptions platformOptions = new() { DataDirectory = Root };
        options?.Invoke(platformOptions);
        VolumeDirectory = platformOptions.VolumeDirectory;
        Platform = new UnikraftPlatform(
            platformOptions,
            Time,
            Logs,
            context =>
            {
                _hypervisor = new InMemoryHypervisor(backend, context, Disk);
                if (missing is not null)
                {
                    return new WrappedHypervisor(_hypervisor) { Missing = missing };
                }

                return isAllSimulated ? new WrappedHypervisor(_hypervisor) { Directories = new SimulatedDirectorySync(Disk), Disks = (instance, disks) => _machineDisks[instance] = disks } : _hypervisor;
            },
            Disk,
            VolumeDirectory is null ? Disk : null,
            isAllSimulated ? Disk : null);
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

    /// <summary>A volume as the guest of an instance has it. On one disk only.</summary>
    public IBlockDevice DeviceOf(NameOrUuid instance, string at) => _machineDisks[Instances.Get(instance).Uuid].Single(disk => string.Equals(disk.At, at, StringComparison.Ordinal)).Device;

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

    /// <summary>A platform of which everything is on one simulated disk, volumes and archives too.</summary>
    public static DurablePlatform OnOneDisk(SimulatedDisk disk) => new(disk, options: null, new InMemoryHypervisorOptions(), new ManualTimeProvider(), isAllSimulated: true);

    /// <summary>Asks the guest <c>kv</c>, and waits for its answer.</summary>
    public async Task<string> AskAsync(NameOrUuid instance, string command)
    {
        await using ConsoleSession console = new(Instances.AttachConsole(instance));
        await console.WriteLineAsync(command);
        string? line;
        do
        {
            line = await console.ReadLineAsync();
        }
        while (line?.StartsWith("kv ", StringComparison.Ordinal) is true);
        return line ?? "";
    }

    /// <summary>What the next process finds when this one is killed now.</summary>
    public DurablePlatform Kill(Action<PlatformOptions>? options = null, DateTimeOffset? start = null) => new(Disk.AfterKill(), options, start: start);

    /// <summary>The process is gone: what it had in memory may go too, which .NET keeps of each meter that it knows.</summary>
    public void Abandon() => Platform.Telemetry.Dispose();

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

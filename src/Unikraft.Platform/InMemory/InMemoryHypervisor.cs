using System.Text;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.InMemory.Files;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.InMemory;

/// <summary>The second backend: scripted guests in place of machines.</summary>
internal sealed class InMemoryHypervisor : IHypervisor
{
    private const int MaxStringBytes = 44 << 10;
    private const int PointerBytes = 8;

    private readonly InMemorySnapshotFiles _snapshotFiles;
    private int _machines;
    private int _snapshots;

    /// <param name="options">The options.</param>
    /// <param name="context">The clock and the log.</param>
    /// <param name="files">The file system of snapshots; that of the host when <see langword="null"/>.</param>
    public InMemoryHypervisor(InMemoryHypervisorOptions options, HypervisorContext context, IFileLayer? files = null)
    {
        Options = options;
        TimeProvider = context.TimeProvider;
        Files = files ?? new HostFileLayer(directories: null);
        Info = new("in-memory", "scripted guests, no virtual hardware", options.MaxVcpus, MinMemoryMb: 1, options.MaxMemoryMb);
        _snapshotFiles = new InMemorySnapshotFiles(this);
    }

    public HypervisorInfo Info { get; }

    public InMemoryHypervisorOptions Options { get; }

    public TimeProvider TimeProvider { get; }

    public IFileLayer Files { get; }

    /// <summary>The machines that were made and not disposed of.</summary>
    public int Machines => Volatile.Read(ref _machines);

    /// <summary>The snapshots that were taken and not disposed of.</summary>
    public int Snapshots => Volatile.Read(ref _snapshots);

    public async ValueTask<IVirtualMachine> CreateAsync(
        MachineConfiguration configuration,
        IMachineMonitor monitor,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(configuration);
        ArgumentNullException.ThrowIfNull(monitor);
        cancellationToken.ThrowIfCancellationRequested();
        Require(configuration);
        MachineDisk.Require(configuration.Disks);
        ScriptedGuest guest = MakeGuest(configuration.Image.Name);
        await DelayAsync(Options.CreateLatency, cancellationToken).ConfigureAwait(false);
        ThrowIf(Options.CreateFailure?.Invoke(configuration));
        return Make(new MachineState(configuration, guest), configuration.Uuid, monitor, configuration.Disks);
    }

    public async ValueTask<IVirtualMachine> RestoreAsync(
        IMachineSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(snapshot);
        ArgumentNullException.ThrowIfNull(monitor);
        cancellationToken.ThrowIfCancellationRequested();
        if (snapshot is not InMemorySnapshot own)
        {
            throw new ArgumentException("The snapshot is of another backend.", nameof(snapshot));
        }

        MachineDisk.Require(disks);
        MachineState state = own.State;
        if (!state.Disks.All(disk => disks.Any(disk.IsMetBy)))
        {
            throw new ArgumentException("The guest of the snapshot has disks in other slots or of other sizes.", nameof(disks));
        }

        await DelayAsync(Options.RestoreLatency, cancellationToken).ConfigureAwait(false);
        ThrowIf(Options.RestoreFailure?.Invoke(uuid));
        return Make(state with { Guest = state.Guest.Clone() }, uuid, monitor, disks);
    }

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => this as TFeature ?? _snapshotFiles as TFeature;

    /// <exception cref="ImageException">There is no such guest.</exception>
    public ScriptedGuest MakeGuest(string image)
    {
        string name = Path.GetFileNameWithoutExtension(image);
        return Options.Guests.TryGetValue(name, out Func<ScriptedGuest>? factory)
            ? factory()
            : throw new ImageException(
                ImageError.UnknownFormat,
                image,
                $"There is no scripted guest for the image '{image}'. Known are: {string.Join(", ", Options.Guests.Keys.Order(StringComparer.Ordinal))}");
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    public Task DelayAsync(TimeSpan latency, CancellationToken cancellationToken) =>
        latency > TimeSpan.Zero ? Task.Delay(latency, TimeProvider, cancellationToken) : Task.CompletedTask;

    public void OnSnapshotTaken() => Interlocked.Increment(ref _snapshots);

    public void OnSnapshotDisposed() => Interlocked.Decrement(ref _snapshots);

    public void OnMachineDisposed() => Interlocked.Decrement(ref _machines);

    public static void ThrowIf(Exception? failure)
    {
        if (failure is not null)
        {
            throw failure;
        }
    }

    private InMemoryMachine Make(MachineState state, Guid uuid, IMachineMonitor monitor, IReadOnlyList<MachineDisk> disks)
    {
        Interlocked.Increment(ref _machines);
        return new InMemoryMachine(this, state, uuid, monitor, disks);
    }

    private void Require(MachineConfiguration configuration)
    {
        if (configuration.Vcpus < 1 || configuration.Vcpus > Info.MaxVcpus)
        {
            throw new InvalidRequestException($"A machine has 1 to {Info.MaxVcpus} vCPUs, not {configuration.Vcpus}.");
        }

        if (configuration.MemoryMb < Info.MinMemoryMb || configuration.MemoryMb > Info.MaxMemoryMb)
        {
            throw new InvalidRequestException(
                $"A machine has {Info.MinMemoryMb} to {Info.MaxMemoryMb} MiB of memory, not {configuration.MemoryMb}.");
        }

        // The guest ABI gives them 44 KiB, pointers and terminators included.
        IEnumerable<string> strings =
            [configuration.Name, .. configuration.Args, .. configuration.Env.Select(entry => $"{entry.Key}={entry.Value}")];
        long bytes = strings.Sum(text => Encoding.UTF8.GetByteCount(text) + 1L + PointerBytes) + (2 * PointerBytes);
        if (bytes > MaxStringBytes)
        {
            throw new InvalidRequestException(
                $"Arguments and environment take {bytes} bytes with their pointers; a guest has room for {MaxStringBytes}.");
        }
    }
}

using System.Text;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.InMemory;

/// <summary>The second backend: scripted guests in place of machines.</summary>
internal sealed class InMemoryHypervisor(InMemoryHypervisorOptions options, HypervisorContext context) : IHypervisor
{
    private const int MaxStringBytes = 44 << 10;
    private const int PointerBytes = 8;

    private int _machines;
    private int _snapshots;

    public HypervisorInfo Info { get; } =
        new("in-memory", "scripted guests, no virtual hardware", options.MaxVcpus, MinMemoryMb: 1, options.MaxMemoryMb);

    public InMemoryHypervisorOptions Options => options;

    public TimeProvider TimeProvider => context.TimeProvider;

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
        string name = Path.GetFileNameWithoutExtension(configuration.Image.Name);
        if (!options.Guests.TryGetValue(name, out Func<ScriptedGuest>? factory))
        {
            throw new ImageException(
                ImageError.UnknownFormat,
                configuration.Image.Name,
                $"There is no scripted guest for the image '{configuration.Image.Name}'. Known are: "
                + string.Join(", ", options.Guests.Keys.Order(StringComparer.Ordinal)));
        }

        await DelayAsync(options.CreateLatency, cancellationToken).ConfigureAwait(false);
        ThrowIf(options.CreateFailure?.Invoke(configuration));
        return Make(new MachineState(configuration, factory()), configuration.Uuid, monitor, configuration.Disks);
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

        await DelayAsync(options.RestoreLatency, cancellationToken).ConfigureAwait(false);
        ThrowIf(options.RestoreFailure?.Invoke(uuid));
        return Make(state with { Guest = state.Guest.Clone() }, uuid, monitor, disks);
    }

    // No files: a scripted guest is an object, which nobody but itself could write down.
    public TFeature? GetFeature<TFeature>()
        where TFeature : class => this as TFeature;

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    public Task DelayAsync(TimeSpan latency, CancellationToken cancellationToken) =>
        latency > TimeSpan.Zero ? Task.Delay(latency, context.TimeProvider, cancellationToken) : Task.CompletedTask;

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

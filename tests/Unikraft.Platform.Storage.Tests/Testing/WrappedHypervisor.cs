using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>A backend that tells what it boots, and may be able to take names to the disk.</summary>
internal sealed class WrappedHypervisor(IHypervisor inner) : IHypervisor
{
    internal IDirectorySync? Directories { get; init; }

    internal Action<MachineConfiguration>? Booting { get; init; }

    public HypervisorInfo Info => inner.Info;

    public ValueTask<IVirtualMachine> CreateAsync(MachineConfiguration configuration, IMachineMonitor monitor, CancellationToken cancellationToken = default)
    {
        Booting?.Invoke(configuration);
        return inner.CreateAsync(configuration, monitor, cancellationToken);
    }

    public ValueTask<IVirtualMachine> RestoreAsync(
        IMachineSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken = default) => inner.RestoreAsync(snapshot, uuid, monitor, disks, cancellationToken);

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => Directories as TFeature ?? inner.GetFeature<TFeature>();

    public ValueTask DisposeAsync() => inner.DisposeAsync();
}

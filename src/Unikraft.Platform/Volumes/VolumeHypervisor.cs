using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// A backend whose machines have the volumes of their instances, and whose snapshots have those of their machines. Who knows instances only need not know of either.
/// </summary>
internal sealed class VolumeHypervisor(IHypervisor inner) : IHypervisor
{
    private VolumeCatalog? _catalog;

    public HypervisorInfo Info => inner.Info;

    private VolumeCatalog Catalog => _catalog!;

    /// <summary>Names the volumes, before anything else is asked.</summary>
    public void Use(VolumeCatalog catalog) => _catalog = catalog;

    public ValueTask<IVirtualMachine> CreateAsync(
        MachineConfiguration configuration,
        IMachineMonitor monitor,
        CancellationToken cancellationToken = default) => MakeAsync(
            configuration.Uuid,
            boots: true,
            monitor,
            (heard, disks, token) => inner.CreateAsync(configuration with { Disks = disks }, heard, token),
            cancellationToken);

    public ValueTask<IVirtualMachine> RestoreAsync(
        IMachineSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken = default) => MakeAsync(
            uuid,
            boots: false,
            monitor,
            (heard, own, token) => RestoreCoreAsync(snapshot is VolumeSnapshot { Machine: { } machine } ? machine : snapshot, uuid, heard, own, token),
            cancellationToken);

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => inner.GetFeature<TFeature>() switch
        {
            ISnapshotFiles files => new VolumeSnapshotFiles(files, Catalog) as TFeature,
            var feature => feature,
        };

    public ValueTask DisposeAsync() => inner.DisposeAsync();

    private async ValueTask<IVirtualMachine> RestoreCoreAsync(
        IMachineSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken)
    {
        try
        {
            return await inner.RestoreAsync(snapshot, uuid, monitor, disks, cancellationToken).ConfigureAwait(false);
        }
        catch (ArgumentException error)
        {
            // A journal that was damaged may not know any more that a snapshot has volumes.
            throw new HypervisorException(
                $"The guest cannot continue from its snapshot without the volumes that it had, which are not known any more: {error.Message} Put a sound copy of the volume directory there.",
                error);
        }
    }

    private async ValueTask<IVirtualMachine> MakeAsync(
        Guid uuid,
        bool boots,
        IMachineMonitor monitor,
        Func<IMachineMonitor, IReadOnlyList<MachineDisk>, CancellationToken, ValueTask<IVirtualMachine>> make,
        CancellationToken cancellationToken)
    {
        if (Catalog.Find(uuid) is not { } volumes)
        {
            return await make(monitor, [], cancellationToken).ConfigureAwait(false);
        }

        OpenVolumes open = await Catalog.OpenAsync(volumes, boots, cancellationToken).ConfigureAwait(false);
        try
        {
            IVirtualMachine machine = await make(new VolumeMonitor(monitor, Catalog, volumes), open.Disks, cancellationToken).ConfigureAwait(false);
            return new VolumeMachine(machine, Catalog, open);
        }
        catch
        {
            await Catalog.CloseAsync(open).ConfigureAwait(false);
            throw;
        }
    }
}

namespace Unikraft.Platform.Hypervisors;

/// <summary>A backend: makes machines, and restores them from snapshots.</summary>
/// <remarks>Safe for concurrent use. Disposing of it while machines exist is a mistake of the caller.</remarks>
public interface IHypervisor : IAsyncDisposable
{
    /// <summary>The backend, and what it can do.</summary>
    HypervisorInfo Info { get; }

    /// <summary>Makes a machine, with its image in memory and ready to start.</summary>
    /// <param name="configuration">The machine.</param>
    /// <param name="monitor">Hears of what happens in it.</param>
    /// <param name="cancellationToken">Cancels the making; nothing remains then.</param>
    /// <exception cref="ImageException">The image cannot be used on such a machine.</exception>
    /// <exception cref="InvalidRequestException">The configuration exceeds what the backend can do.</exception>
    /// <exception cref="HypervisorException">The host refused.</exception>
    ValueTask<IVirtualMachine> CreateAsync(
        MachineConfiguration configuration,
        IMachineMonitor monitor,
        CancellationToken cancellationToken = default);

    /// <summary>Makes a machine that continues from a snapshot once it is started. It has its own identity and its own randomness.</summary>
    /// <param name="snapshot">A snapshot taken by this backend. It may be disposed of while the machine lives.</param>
    /// <param name="uuid">The UUID of the new machine.</param>
    /// <param name="monitor">Hears of what happens in it.</param>
    /// <param name="disks">
    /// Its disks. Where the guest of the snapshot uses one there must be one of that size again; a slot that was empty may have one.
    /// </param>
    /// <param name="cancellationToken">Cancels the restoring; nothing remains then.</param>
    /// <exception cref="ArgumentException">The snapshot is of another backend, or the disks are not those that it needs.</exception>
    /// <exception cref="HypervisorException">The host refused.</exception>
    ValueTask<IVirtualMachine> RestoreAsync(
        IMachineSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken = default);

    /// <summary>Gets an optional ability of the backend, such as <see cref="ISnapshotFiles"/>.</summary>
    /// <typeparam name="TFeature">The interface of the ability.</typeparam>
    /// <returns>The ability, or <see langword="null"/> when the backend does not have it.</returns>
    TFeature? GetFeature<TFeature>()
        where TFeature : class;
}

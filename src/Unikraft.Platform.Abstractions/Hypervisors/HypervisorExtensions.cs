namespace Unikraft.Platform.Hypervisors;

/// <summary>Shorter forms of calls to a backend.</summary>
public static class HypervisorExtensions
{
    /// <summary>Makes a machine without disks that continues from a snapshot once it is started.</summary>
    /// <param name="hypervisor">The backend.</param>
    /// <param name="snapshot">A snapshot taken by this backend. It may be disposed of while the machine lives.</param>
    /// <param name="uuid">The UUID of the new machine.</param>
    /// <param name="monitor">Hears of what happens in it.</param>
    /// <param name="cancellationToken">Cancels the restoring; nothing remains then.</param>
    /// <inheritdoc cref="IHypervisor.RestoreAsync" path="/exception"/>
    public static ValueTask<IVirtualMachine> RestoreAsync(
        this IHypervisor hypervisor,
        IMachineSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(hypervisor);
        return hypervisor.RestoreAsync(snapshot, uuid, monitor, [], cancellationToken);
    }
}

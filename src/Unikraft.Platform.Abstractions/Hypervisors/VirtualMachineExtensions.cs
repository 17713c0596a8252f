namespace Unikraft.Platform.Hypervisors;

/// <summary>Shorter forms of calls to a machine.</summary>
public static class VirtualMachineExtensions
{
    /// <summary>Takes a snapshot with the default options.</summary>
    /// <param name="machine">The machine.</param>
    /// <param name="cancellationToken">Cancels the snapshot: the machine goes on, and nothing is lost for the next one.</param>
    /// <inheritdoc cref="IVirtualMachine.CaptureAsync" path="/exception"/>
    public static ValueTask<IMachineSnapshot> CaptureAsync(this IVirtualMachine machine, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(machine);
        return machine.CaptureAsync(CaptureOptions.Default, cancellationToken);
    }
}

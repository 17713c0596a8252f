namespace Unikraft.Platform.Hypervisors;

/// <summary>A machine of a backend.</summary>
/// <remarks>
/// Safe for concurrent use. <see cref="Exited"/> completes exactly once, whatever ends the machine, and never faults. Disposing of a machine
/// kills it, waits for its vCPUs and gives everything it held back to the host, which may take until after the call; disposing of the hypervisor waits for it.
/// </remarks>
public interface IVirtualMachine : IAsyncDisposable
{
    /// <summary>Completes when the machine has ended, with how it ended.</summary>
    Task<MachineExit> Exited { get; }

    /// <summary>Whether the app has reached its main entry point, in this machine or in the one it was restored from.</summary>
    bool HasReachedMain { get; }

    /// <summary>Lets the vCPUs run for the first time.</summary>
    /// <param name="cancellationToken">Cancels the start as long as it has not begun.</param>
    /// <exception cref="InvalidOperationException">The machine was started before.</exception>
    /// <exception cref="HypervisorException">The host refused a vCPU or its first state. Dispose of the machine: it has ended as failed.</exception>
    ValueTask StartAsync(CancellationToken cancellationToken = default);

    /// <summary>Stops all vCPUs at an instruction boundary. Pauses nest; an exited machine pauses and resumes without effect.</summary>
    /// <param name="cancellationToken">Cancels the pause.</param>
    ValueTask PauseAsync(CancellationToken cancellationToken = default);

    /// <summary>Undoes one <see cref="PauseAsync"/>.</summary>
    /// <exception cref="InvalidOperationException">The machine is not paused.</exception>
    void Resume();

    /// <summary>
    /// Takes a snapshot of the machine while it runs or is paused. A running one stands still only for what changed since the last look at it.
    /// </summary>
    /// <param name="options">How to take it.</param>
    /// <param name="cancellationToken">Cancels the snapshot: the machine goes on, and nothing is lost for the next one.</param>
    /// <exception cref="InvalidOperationException">
    /// The machine has not been started, or another snapshot of it is being taken.
    /// </exception>
    /// <exception cref="MachineExitedException">The machine ended before the snapshot was complete.</exception>
    /// <exception cref="HypervisorException">The host refused, or the app is being killed (<see cref="KillApp"/>).</exception>
    ValueTask<IMachineSnapshot> CaptureAsync(CaptureOptions options, CancellationToken cancellationToken = default);

    /// <summary>
    /// Ends the call by which the guest asked to become a template or to be forked: it returns an error and the guest goes on. Without effect on an
    /// exited machine.
    /// </summary>
    /// <param name="refusal">The error.</param>
    /// <exception cref="InvalidOperationException">The guest has not asked for anything.</exception>
    void RefuseRequest(GuestRequestRefusal refusal);

    /// <summary>Ends the call by which the guest asked to be forked: it returns as the parent. Without effect on an exited machine.</summary>
    /// <param name="child">The UUID of the child.</param>
    /// <exception cref="InvalidOperationException">The guest has not asked to be forked.</exception>
    void CompleteFork(Guid child);

    /// <summary>Asks the guest to shut down.</summary>
    void RequestStop();

    /// <summary>Makes the guest's kernel kill its app, however busy that is. The machine then ends as crashed.</summary>
    void KillApp();

    /// <summary>Ends the machine where it is. It ends as <see cref="MachineExit.Killed"/>, unless it had ended already.</summary>
    void Kill();

    /// <summary>Gives the guest input on its console.</summary>
    /// <param name="input">The bytes.</param>
    /// <param name="cancellationToken">Cancels the waiting for room.</param>
    /// <returns>How many bytes were taken, at least 1; 0 when the machine has ended.</returns>
    ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default);

    /// <summary>Gets an optional ability of the backend's machines, such as <see cref="IMachineStatistics"/>.</summary>
    /// <typeparam name="TFeature">The interface of the ability.</typeparam>
    /// <returns>The ability, or <see langword="null"/> when the backend does not have it.</returns>
    TFeature? GetFeature<TFeature>()
        where TFeature : class;
}

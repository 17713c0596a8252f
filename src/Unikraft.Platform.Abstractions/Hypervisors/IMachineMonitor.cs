namespace Unikraft.Platform.Hypervisors;

/// <summary>Hears of what happens in a machine.</summary>
/// <remarks>Called on the thread of a vCPU, which stands still meanwhile: implementations must be quick, must not block and must not throw.</remarks>
public interface IMachineMonitor
{
    /// <summary>The guest wrote to its console.</summary>
    /// <param name="output">The bytes, valid during the call.</param>
    void OnConsoleOutput(ReadOnlySpan<byte> output);

    /// <summary>The app reached its main entry point. Called at most once, and never for a machine restored from behind that point.</summary>
    void OnMainReached();

    /// <summary>
    /// The guest asks to become a template. The vCPU stays in its call: the call returns in every machine restored from a snapshot that is taken
    /// from now on, and in this one only when it is refused by <see cref="IVirtualMachine.RefuseRequest"/>.
    /// </summary>
    void OnTemplateRequested();

    /// <summary>
    /// The guest asks to be forked. The vCPU stays in its call until <see cref="IVirtualMachine.CompleteFork"/> or
    /// <see cref="IVirtualMachine.RefuseRequest"/>; in every machine restored from a snapshot that is taken until then it returns as the child.
    /// </summary>
    void OnForkRequested();

    /// <summary>
    /// A disk could not do what the guest asked for, and the guest was told that it failed. Called on any thread. Does nothing unless implemented.
    /// </summary>
    /// <param name="disk">The disk.</param>
    /// <param name="error">Why it could not.</param>
    void OnDiskFailed(MachineDisk disk, Exception error)
    {
    }
}

namespace Unikraft.Platform.Hypervisors;

/// <summary>How a machine ended: one of the nested cases, and no other.</summary>
public abstract record MachineExit
{
    private MachineExit()
    {
    }

    /// <summary>The guest switched the machine off.</summary>
    /// <param name="ExitCode">The exit code of the app, if it left its main entry point.</param>
    /// <param name="StopCode">The stop code of the kernel, if it gave one.</param>
    public sealed record PoweredOff(int? ExitCode, StopCode? StopCode) : MachineExit;

    /// <summary>A CPU exception ended the guest, and its kernel could still report it.</summary>
    /// <param name="StopCode">The stop code made from the exception.</param>
    /// <param name="Fault">The exception.</param>
    public sealed record Crashed(StopCode StopCode, GuestFault Fault) : MachineExit;

    /// <summary>A CPU exception ended the guest, and no handler could be entered.</summary>
    /// <param name="StopCode">The stop code that stands for it.</param>
    public sealed record TripleFault(StopCode StopCode) : MachineExit;

    /// <summary>The machine was killed from outside.</summary>
    public sealed record Killed : MachineExit;

    /// <summary>The backend could not go on running the machine.</summary>
    /// <param name="Error">Why.</param>
    public sealed record Failed(Exception Error) : MachineExit;
}

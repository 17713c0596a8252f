namespace Unikraft.Platform.Hypervisors;

/// <summary>The machine has ended, so that what was asked of it cannot be done any more.</summary>
/// <param name="exit">How it ended.</param>
public sealed class MachineExitedException(MachineExit exit)
    : PlatformException(PlatformErrorCode.WrongState, "The machine has ended.")
{
    /// <summary>How the machine ended.</summary>
    public MachineExit Exit { get; } = exit;
}

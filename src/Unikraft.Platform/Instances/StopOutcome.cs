using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Instances;

/// <summary>How an instance stopped, in the terms of the instances API.</summary>
internal sealed record StopOutcome(StopReason Reason, int? ExitCode, StopCode? StopCode, GuestFault? Fault)
{
    /// <summary>
    /// Whether the instance crashed, which is what the restart policy <c>on-failure</c> asks: the kernel exited though the app did not, or the
    /// kernel's stop code is not clean. An app that exits with another code than 0 has not crashed.
    /// </summary>
    public bool IsCrash =>
        (Reason.HasFlag(StopReason.Kernel) && !Reason.HasFlag(StopReason.App)) || StopCode is { IsClean: false };

    /// <summary>The outcome of a suspension: the guest neither exited nor was it a forced stop.</summary>
    public static StopOutcome Suspended(StopInitiator initiator) => Bare(Asked(initiator));

    /// <summary>Composes the outcome from who asked for the stop and from how the machine ended.</summary>
    /// <remarks>
    /// <list type="table">
    /// <item><term>who asked</term><description>user: U and P, because the stop travels through the platform; platform: P; nobody: none</description></item>
    /// <item><term>powered off</term><description>A if the app left an exit code, K if the kernel left a stop code</description></item>
    /// <item><term>crashed, triple fault</term><description>K; an exit code given before is ignored</description></item>
    /// <item><term>killed</term><description>F. Nobody but the platform can kill, so P is set as well. This is also the end of a guest which
    /// survived everything that a regular stop does to it</description></item>
    /// <item><term>failed</term><description>no further bit: the guest did not say why it ended</description></item>
    /// <item><term>no machine was made</term><description>F if the stop that came in between was a forced one</description></item>
    /// </list>
    /// </remarks>
    /// <param name="initiator">Who asked.</param>
    /// <param name="forced">Whether a forced stop was asked for.</param>
    /// <param name="exit">How the machine ended; <see langword="null"/> when the stop came before there was one.</param>
    public static StopOutcome Compose(StopInitiator initiator, bool forced, MachineExit? exit)
    {
        StopReason asked = Asked(initiator);
        return exit switch
        {
            MachineExit.PoweredOff off => new StopOutcome(
                asked
                | (off.ExitCode is null ? StopReason.None : StopReason.App)
                | (off.StopCode is null ? StopReason.None : StopReason.Kernel),
                off.ExitCode,
                off.StopCode,
                Fault: null),
            MachineExit.Crashed crashed => new StopOutcome(asked | StopReason.Kernel, ExitCode: null, crashed.StopCode, crashed.Fault),
            MachineExit.TripleFault fault => new StopOutcome(asked | StopReason.Kernel, ExitCode: null, fault.StopCode, Fault: null),
            MachineExit.Killed => Bare(asked | StopReason.Platform | StopReason.Force),
            null when forced => Bare(asked | StopReason.Force),
            _ => Bare(asked),
        };
    }

    private static StopReason Asked(StopInitiator initiator) => initiator switch
    {
        StopInitiator.None => StopReason.None,
        StopInitiator.Platform => StopReason.Platform,
        _ => StopReason.User | StopReason.Platform,
    };

    private static StopOutcome Bare(StopReason reason) => new(reason, ExitCode: null, StopCode: null, Fault: null);
}

using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Instances;

/// <summary>Tells the log and the metrics of the platform what became of one instance. Not called under a lock.</summary>
internal sealed class InstanceReports(PlatformContext platform, ResourceIdentity identity)
{
    public void Running(TimeSpan bootTime, bool restored)
    {
        platform.Telemetry.Started(bootTime, restored);
        platform.Logger.InstanceRunning(identity.Name, identity.Uuid, bootTime);
    }

    public void Stopped(StopOutcome outcome, MachineExit exit)
    {
        platform.Telemetry.Stopped(outcome.Reason);
        if (exit is MachineExit.Failed failed)
        {
            platform.Logger.MachineFailed(failed.Error, identity.Name, identity.Uuid);
        }

        if (outcome.IsCrash)
        {
            platform.Logger.InstanceCrashed(
                identity.Name,
                identity.Uuid,
                outcome.Reason.ToMask(),
                outcome.StopCode?.Describe(),
                outcome.Fault);
        }
        else
        {
            platform.Logger.InstanceStopped(
                identity.Name,
                identity.Uuid,
                outcome.Reason.ToMask(),
                outcome.ExitCode,
                outcome.StopCode);
        }
    }

    public void RestartScheduled(TimeSpan delay, int attempt) =>
        platform.Logger.RestartScheduled(identity.Name, identity.Uuid, delay, attempt);

    public void Restarted() => platform.Telemetry.Restarted();

    public void RequestRefused(Exception error, string request) =>
        platform.Logger.GuestRequestRefused(error, identity.Name, identity.Uuid, request);

    public void TeardownFailed(Exception error) => platform.Logger.TeardownFailed(error, identity.Name, identity.Uuid);

    /// <summary>A stop goes on by force, because the guest did not do what it was asked.</summary>
    /// <param name="machineKilled">Whether the whole machine is killed, and not only the app.</param>
    public void Escalated(bool machineKilled)
    {
        if (machineKilled)
        {
            platform.Logger.KillingMachine(identity.Name, identity.Uuid);
        }
        else
        {
            platform.Logger.KillingApp(identity.Name, identity.Uuid);
        }
    }
}

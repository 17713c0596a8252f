using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Instances;

/// <summary>Takes the machine of one instance away while it is not used, and keeps its memory.</summary>
/// <remarks>Guarded by the lock of the instance.</remarks>
/// <param name="platform">The platform.</param>
/// <param name="status">The instance.</param>
/// <param name="snapshots">Its snapshots.</param>
/// <param name="connections">Its connections.</param>
/// <param name="noteStop">Notes that it stops. Called under the lock.</param>
/// <param name="applyStop">Stops the run that was noted. Not called under the lock.</param>
internal sealed class InstanceSuspension(
    PlatformContext platform,
    InstanceStatus status,
    InstanceSnapshots snapshots,
    ConnectionGate connections,
    Func<StopInitiator, StopPlan, InstanceRun?> noteStop,
    Action<InstanceRun, StopPlan> applyStop)
{
    /// <summary>Keeps the memory of the instance in a snapshot, and gives its machine back.</summary>
    public Task SuspendAsync(CancellationToken cancellationToken)
    {
        if (status.Policies.Features.HasFlag(InstanceFeatures.DeleteOnStop))
        {
            throw new InvalidRequestException($"Cannot suspend instance '{status.Identity.Name}': it has the feature 'delete-on-stop'");
        }

        return platform.Telemetry.TraceAsync(
            TelemetryNames.SuspendActivity,
            status.Identity,
            () => SuspendAsync(StopInitiator.User, onlyIn: null, cancellationToken));
    }

    /// <summary>A run has had no connection for the cooldown time.</summary>
    public async Task ScaleToZeroAsync(InstanceRun idle)
    {
        if (status.Policies.ScaleToZero is not { } policy)
        {
            return;
        }

        if (policy.Stateful)
        {
            await SuspendAsync(StopInitiator.Platform, idle, CancellationToken.None).ConfigureAwait(false);
            return;
        }

        StopPlan plan = new(Force: false, platform.Settings.StopGracePeriod);
        lock (status.Sync)
        {
            if (!IsIdle(idle))
            {
                return;
            }

            noteStop(StopInitiator.Platform, plan);
            idle.EndsInStandby = true;
        }

        applyStop(idle, plan);
    }

    /// <param name="initiator">Who wants it.</param>
    /// <param name="onlyIn">The only run to suspend, and only while it has no connection; <see langword="null"/> for any.</param>
    /// <param name="cancellationToken">Cancels the suspension as long as it is not done.</param>
    private async Task SuspendAsync(StopInitiator initiator, InstanceRun? onlyIn, CancellationToken cancellationToken)
    {
        CloneSource clone = await snapshots
            .BeginCloneAsync(ClonePurpose.Suspension, onlyIn, waitForPending: false, cancellationToken)
            .ConfigureAwait(false);
        if (clone.Machine is not { } machine)
        {
            // In standby by now.
            clone.Snapshot?.Dispose();
            return;
        }

        Task started;
        lock (status.Sync)
        {
            started = status.Run?.StartDone.Task ?? Task.CompletedTask;
        }

        // The app may reach its main entry point before its start is over, and a start that is over is not given up any more.
        await started.ConfigureAwait(false);
        SnapshotReference memory = await platform.CancelOnCloseAsync(
            token => snapshots.CaptureAsync(clone, ClonePurpose.Suspension, pauseBudget: null, token),
            cancellationToken).ConfigureAwait(false);
        InstanceRun? run = null;
        try
        {
            if (platform.Data is { } data)
            {
                await memory.KeepAsync(data, cancellationToken).ConfigureAwait(false);
            }

            run = TrySuspend(initiator, onlyIn, machine, memory);
        }
        finally
        {
            if (run is null)
            {
                memory.Dispose();
                machine.Resume();
            }
        }

        if (run is null)
        {
            lock (status.Sync)
            {
                status.ThrowIfClosed();
                if (onlyIn is not null)
                {
                    return;
                }

                throw ClonePurpose.Suspension.WrongState(status.Identity.Name, status.State);
            }
        }

        machine.Kill();
        await run.Ended.Task.ConfigureAwait(false);
    }

    // Once the memory is that of the next start, nothing can come in between any more.
    private InstanceRun? TrySuspend(StopInitiator initiator, InstanceRun? onlyIn, IVirtualMachine machine, SnapshotReference memory)
    {
        lock (status.Sync)
        {
            InstanceRun? run = status is { IsClosed: false, State: InstanceState.Running } ? status.Run : null;
            if (run?.Machine != machine || (onlyIn is not null && !IsIdle(onlyIn)))
            {
                return null;
            }

            noteStop(initiator, new StopPlan(Force: false, GracePeriod: TimeSpan.Zero));
            run.Suspension = memory;
            run.EndsInStandby = status.Policies.ScaleToZero is not null;
            return run;
        }
    }

    // Under the lock.
    private bool IsIdle(InstanceRun run) =>
        status is { IsClosed: false, State: InstanceState.Running } && status.Run == run && connections.IsIdle;
}

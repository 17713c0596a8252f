using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Instances;

/// <summary>The owner of one instance: starts, stops and ends it, and makes and gives back its machines.</summary>
/// <remarks>What it is guarded by, and the rule for that lock, is <see cref="InstanceStatus"/>.</remarks>
[SuppressMessage("Design", "CA1001:Types that own disposable fields should be disposable", Justification = "A run is disposed of when it ends.")]
internal sealed partial class InstanceController
{
    private readonly PlatformContext _platform;
    private readonly ResourceIdentity _identity;
    private readonly InstanceStatus _status;
    private readonly RestartScheduler _restarts;
    private readonly InstanceReports _reports;
    private readonly IGuestRequests _requests;

    private readonly TaskCompletionSource<Task> _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private TaskCompletionSource<InstanceRun> _started = NewStarted();
    private bool _isClosing;
    private Task _teardown = Task.CompletedTask;

    public InstanceController(
        PlatformContext platform,
        ResourceIdentity identity,
        Blueprint blueprint,
        InstancePolicies policies,
        Retention retention,
        InstanceTransitions transitions,
        IGuestRequests requests)
    {
        _platform = platform;
        _identity = identity;
        _requests = requests;
        _status = new InstanceStatus(platform.TimeProvider, identity, blueprint, policies, retention, transitions);
        _restarts = new RestartScheduler(platform, _status, policies.Restart, sequence => StartAsync(sequence, onlyFromStandby: false, CancellationToken.None));
        _reports = new InstanceReports(platform, identity);
        _status.Volumes = () => platform.Volumes.ListOf(identity.Uuid);
        _status.Roms = () => platform.Volumes.RomsOf(identity.Uuid);
        Snapshots = new InstanceSnapshots(platform, _status, blueprint);
        Connections = new ConnectionGate(platform, _status, this);
        Suspension = new InstanceSuspension(platform, _status, Snapshots, Connections, NoteStop, ApplyStop);
        Updates = new InstanceUpdates(_status, Connections, platform.Volumes, platform.Hypervisor.Info);
        Origin = blueprint.Origin;
        Log = new InstanceLog(platform.Settings.LogCapacityBytes);
        KeepChanges();
    }

    public ResourceIdentity Identity => _identity;

    public InstanceOrigin? Origin { get; }

    public InstanceLog Log { get; }

    /// <summary>How long the instance is kept.</summary>
    public Retention Retention => _status.Retention;

    public InstanceSnapshots Snapshots { get; }

    public ConnectionGate Connections { get; }

    public InstanceSuspension Suspension { get; }

    public InstanceUpdates Updates { get; }

    private TimeProvider Time => _platform.TimeProvider;

    public Instance Describe()
    {
        lock (_status.Sync)
        {
            return _status.Describe();
        }
    }

    /// <summary>Measures the instance.</summary>
    /// <param name="withMemory">Whether its memory is looked through as well, which takes time.</param>
    public InstanceMetrics Measure(bool withMemory = true)
    {
        InstanceMetrics metrics;
        IVirtualMachine? machine;
        lock (_status.Sync)
        {
            machine = _status.Run?.Machine;
            Instance now = _status.Describe();
            InstanceConnections connections = Connections.Connections;
            metrics = new InstanceMetrics
            {
                Uuid = now.Uuid,
                Name = now.Name,
                State = now.State,
                StartCount = now.StartCount,
                RestartCount = now.RestartCount,
                StartedAt = now.StartedAt,
                StoppedAt = now.StoppedAt,
                Uptime = now.Uptime,
                BootTime = now.BootTime,
                CpuTime = _status.Run is null ? _status.Last?.CpuTime ?? default : default,
                Connections = connections.Active,
                Queued = connections.Queued,
                TotalConnections = connections.Total,
                WakeupLatency = connections.Wakeups.ToBuckets(),
                WakeupLatencySum = connections.Wakeups.Sum,
            };
        }

        return machine?.GetFeature<IMachineStatistics>() is not { } statistics
            ? metrics
            : metrics with { CpuTime = statistics.CpuTime, RssBytes = withMemory ? statistics.ResidentBytes : 0 };
    }

    /// <summary>The instance can be found: requests of its guest are served from now on, and its autokill policy holds.</summary>
    public void Publish()
    {
        Func<Task>? delete;
        lock (_status.Sync)
        {
            _status.Publish();
            // It may have stopped before it could be found.
            delete = _status is { State: InstanceState.Stopped, Last: not null } ? BeginDeleteOnStop() : null;
        }

        _ = delete?.Invoke();
    }

    /// <summary>Starts the instance, and returns when its vCPUs run.</summary>
    public Task StartAsync(CancellationToken cancellationToken) => StartAsync(restart: null, onlyFromStandby: false, cancellationToken);

    /// <summary>Starts the instance for a connection, if it is still in standby.</summary>
    public Task WakeAsync() => StartAsync(restart: null, onlyFromStandby: true, CancellationToken.None);

    /// <summary>Stops the instance and waits until it is stopped.</summary>
    public Task<Instance> StopAsync(StopInitiator initiator, StopPlan plan, CancellationToken cancellationToken) =>
        _platform.Telemetry.TraceAsync(TelemetryNames.StopActivity, _identity, () => StopTracedAsync(initiator, plan, cancellationToken));

    private async Task<Instance> StopTracedAsync(StopInitiator initiator, StopPlan plan, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        InstanceRun? run;
        bool drains, isIdle, wasStandby;
        lock (_status.Sync)
        {
            _status.ThrowIfClosed();
            drains = plan.DrainTimeout > TimeSpan.Zero && InstanceLifecycle.Allows(_status.State, InstanceOperation.Drain);
            run = drains ? NoteDrain(initiator, plan) : NoteStop(initiator, plan);
            isIdle = Connections.Connections.Active == 0;
            wasStandby = _status.State == InstanceState.Standby;
            if (wasStandby)
            {
                _status.Transition(InstanceTrigger.StopRequested);
            }
        }

        if (wasStandby)
        {
            await _platform.Volumes.OnStoppedAsync(_identity.Uuid).ConfigureAwait(false);
        }

        if (run is not null)
        {
            if (!drains)
            {
                ApplyStop(run, plan);
            }
            else if (isIdle)
            {
                EndDrain(run);
            }

            await run.Ended.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        }

        return Describe();
    }

    /// <summary>The last connection of a draining instance has ended, or the time is up: it is stopped.</summary>
    public void EndDrain(InstanceRun run)
    {
        StopPlan plan;
        lock (_status.Sync)
        {
            if (_status.Run != run || _status.State != InstanceState.Draining)
            {
                return;
            }

            plan = new StopPlan(Force: false, run.Drain!.GracePeriod);
            NoteStop(StopInitiator.None, plan);
        }

        ApplyStop(run, plan);
    }

    /// <summary>Stops the instance on behalf of the platform and waits until nothing of its machine is left. A closed one is fine.</summary>
    public async Task ShutDownAsync(bool force)
    {
        StopPlan plan = force ? StopPlan.Forced : new StopPlan(Force: false, _platform.Settings.StopGracePeriod);
        InstanceRun? run;
        lock (_status.Sync)
        {
            run = _status.IsClosed ? _status.Run : NoteStop(StopInitiator.Platform, plan);
        }

        if (run is not null)
        {
            ApplyStop(run, plan);
            await run.Ended.Task.ConfigureAwait(false);
        }

        await TornDownAsync().ConfigureAwait(false);
    }

    /// <summary>Ends the instance for good: it is force-stopped, everything it holds is freed, and whatever is asked of it is refused.</summary>
    /// <param name="initiator">Who wants it.</param>
    /// <param name="refusal">Makes the error that operations and waiters get from now on.</param>
    public Task CloseAsync(StopInitiator initiator, Func<Exception> refusal)
    {
        InstanceRun? run;
        lock (_status.Sync)
        {
            if (_isClosing)
            {
                return _closed.Task.Unwrap();
            }

            _isClosing = true;
            Refuse(refusal);
            run = NoteStop(initiator, StopPlan.Forced);
        }

        _closed.SetResult(CloseAsync(run));
        return _closed.Task.Unwrap();
    }

    /// <summary>Every change of the state from now on.</summary>
    public IAsyncEnumerable<InstanceTransition> WatchAsync(CancellationToken cancellationToken)
    {
        lock (_status.Sync)
        {
            _status.ThrowIfClosed();
            return _status.WatchAsync(cancellationToken);
        }
    }

    /// <summary>Waits until the instance is in a state, or has been in it since its last start.</summary>
    public Task<Instance> WaitAsync(InstanceState state, TimeSpan? timeout, CancellationToken cancellationToken) =>
        _status.WaitAsync(state, timeout, cancellationToken);

    /// <summary>
    /// Expects the coming start to succeed. The result must be called after the start; it waits for the app to reach its main entry point.
    /// </summary>
    public Func<TimeSpan, CancellationToken, Task<Instance>> ExpectRunning()
    {
        InstanceStatus.Waiter waiter;
        lock (_status.Sync)
        {
            waiter = _status.AddWaiter(() =>
                _status.State == InstanceState.Running || (_status.State is InstanceState.Stopped or InstanceState.Standby && _status.Restart is null));
        }

        return async (timeout, cancellationToken) =>
        {
            Instance reached = await _status.AwaitAsync(waiter, InstanceState.Running, timeout, cancellationToken).ConfigureAwait(false);
            return reached.State == InstanceState.Running
                ? reached
                : throw new WrongStateException(
                    $"Instance '{_identity.Name}' stopped before it was running: stop reason "
                    + $"{reached.StopReason?.ToMask()} ({(int?)reached.StopReason}), stop code {reached.StopCode?.Describe() ?? "none"}",
                    reached.State);
        };
    }

    /// <summary>Gives the machine input, as soon as one runs.</summary>
    /// <returns>How many bytes it took, at least 1.</returns>
    public async Task<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken)
    {
        while (true)
        {
            Task<InstanceRun> started;
            lock (_status.Sync)
            {
                _status.ThrowIfClosed();
                started = _started.Task;
            }

            InstanceRun run = await started.WaitAsync(cancellationToken).ConfigureAwait(false);
            int taken = 0;
            try
            {
                taken = await run.Machine!.WriteConsoleAsync(input, cancellationToken).ConfigureAwait(false);
            }
            catch (ObjectDisposedException) when (run.Machine!.Exited.IsCompleted)
            {
                // As good as ended: the input waits for the next machine.
            }

            if (taken > 0)
            {
                return taken;
            }

            await run.Ended.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The app of a run has reached its main entry point.</summary>
    public void OnMainReached(InstanceRun run)
    {
        bool entered;
        lock (_status.Sync)
        {
            entered = EnterRunning(run, run.MainTimestamp);
        }

        if (entered)
        {
            _reports.Running(run.BootTime!.Value, restored: false);
        }
    }

    /// <summary>The guest of a run asks to become a template. Called on the thread of its vCPU.</summary>
    public void OnTemplateRequested(InstanceRun run) => _ = ServeAsync(run, "template", () => _requests.ConvertAsync(this, run));

    /// <summary>The guest of a run asks to be forked. Called on the thread of its vCPU.</summary>
    public void OnForkRequested(InstanceRun run) => _ = ServeAsync(run, "fork", async () =>
    {
        Guid child = await _requests.ForkAsync(this, run).ConfigureAwait(false);
        run.Machine!.CompleteFork(child);
    });

    private static TaskCompletionSource<InstanceRun> NewStarted() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private async Task ServeAsync(InstanceRun run, string request, Func<Task> serve)
    {
        // Not on the thread of the vCPU, which stands still until it is answered.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        using Rundown.Scope? scope = _platform.Rundown.TryEnter();
        if (scope is null)
        {
            // The machine ends with the platform.
            return;
        }

        await Task.WhenAll(run.StartDone.Task, _status.Published).ConfigureAwait(false);
        // The news of main may still be on its way.
        OnMainReached(run);
        try
        {
            await serve().ConfigureAwait(false);
        }
        catch (Exception error)
        {
            _reports.RequestRefused(error, request);
            run.Machine?.RefuseRequest(error is PlatformException { Code: PlatformErrorCode.SnapshotPending }
                ? GuestRequestRefusal.Busy
                : GuestRequestRefusal.TryAgain);
        }
    }

    private Task StartAsync(RestartSequence? restart, bool onlyFromStandby, CancellationToken cancellationToken) =>
        _platform.Telemetry.TraceAsync(
            TelemetryNames.StartActivity,
            _identity,
            restart?.Follows,
            trace => StartTracedAsync(restart, onlyFromStandby, trace, cancellationToken));

    private async Task StartTracedAsync(RestartSequence? restart, bool onlyFromStandby, ActivityContext? trace, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        InstanceRun run;
        SnapshotReference? snapshot;
        lock (_status.Sync)
        {
            _status.ThrowIfClosed();
            if ((restart is not null && (restart != _status.Restart || !restart.IsPending))
                || (onlyFromStandby && _status.State != InstanceState.Standby))
            {
                return;
            }

            if (!InstanceLifecycle.Allows(_status.State, InstanceOperation.Start))
            {
                throw new WrongStateException(
                    $"Cannot start instance '{_identity.Name}' in state '{_status.State.ToText()}'",
                    _status.State);
            }

            _platform.Quotas.EnterLive(_identity.Name, _status.Configuration);
            if (restart is null)
            {
                _restarts.Abort();
            }
            else
            {
                restart.IsPending = false;
                restart.Follows = trace;
                restart.NextAt = null;
                _status.RestartCount++;
            }

            run = _status.Run = new InstanceRun(this, _status.State, _status.Configuration, Time) { Trace = trace };
            snapshot = Snapshots.ShareNext();
            _status.StartCount++;
            Connections.OnStarting();
            _status.Transition(InstanceTrigger.Start);
        }

        try
        {
            using var either = CancellationTokenSource.CreateLinkedTokenSource(
                cancellationToken,
                run.Abandoned,
                _platform.Rundown.Closing);
            IMachineSnapshot? memory = snapshot is null ? null : await snapshot.OpenAsync(either.Token).ConfigureAwait(false);
            run.Machine = memory is null or VolumeSnapshot { Machine: null }
                ? await _platform.Hypervisor.CreateAsync(run.Configuration.ForMachine(_identity), run, either.Token).ConfigureAwait(false)
                : await _platform.Hypervisor.RestoreAsync(memory, _identity.Uuid, run, either.Token).ConfigureAwait(false);
            await run.Machine.StartAsync(either.Token).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            await FailStartAsync(run, restart is not null).ConfigureAwait(false);
            if (error is OperationCanceledException && !cancellationToken.IsCancellationRequested)
            {
                _platform.Rundown.ThrowIfClosed();
                lock (_status.Sync)
                {
                    _status.ThrowIfClosed();
                }

                if (run.NoRestart)
                {
                    throw new WrongStateException($"Instance '{_identity.Name}' was stopped while it was starting", InstanceState.Stopped);
                }
            }

            throw;
        }
        finally
        {
            snapshot?.Dispose();
        }

        Attend(run, restored: snapshot is not null, isRestart: restart is not null);
    }

    // The vCPUs run: from now on stops go to the machine, and somebody has to notice its end.
    private void Attend(InstanceRun run, bool restored, bool isRestart)
    {
        long now = Time.GetTimestamp();
        SnapshotReference? used;
        StopPlan? stop;
        bool entered;
        lock (_status.Sync)
        {
            run.Escalation = new StopEscalation(run.Machine!, Time, _reports.Escalated);
            stop = run.StopWhenStarted is { } gracePeriod ? new StopPlan(run.Forced, gracePeriod) : null;
            used = Snapshots.BeginRun();
            _status.Changed?.Invoke();
            entered = restored && run.Machine!.HasReachedMain && EnterRunning(run, now);
            _started.TrySetResult(run);
        }

        run.StartDone.TrySetResult();
        used?.Dispose();
        if (isRestart)
        {
            _reports.Restarted();
        }

        if (entered)
        {
            _reports.Running(run.BootTime!.Value, restored);
        }

        if (stop is { } plan)
        {
            ApplyStop(run, plan);
        }

        // What follows an end, a restart for one, is not part of what has started the instance: whoever did that may be long gone.
        _ = Detached.Begin(() => AwaitEndAsync(run));
    }

    private async Task FailStartAsync(InstanceRun run, bool isRestart)
    {
        if (run.Machine is { } machine)
        {
            await DisposeAsync(machine).ConfigureAwait(false);
        }

        Func<Task>? delete;
        lock (_status.Sync)
        {
            if (run.NoRestart)
            {
                // A stop came in between, which is how this run ended.
                _status.Last = PastRun.Of(run, StopOutcome.Compose(run.Initiator, run.Forced, exit: null), cpuTime: default, Time);
            }
            else
            {
                _status.StartCount--;
                _status.RestartCount -= isRestart ? 1 : 0;
            }

            delete = EndRun(run, inStandby: !run.NoRestart && run.Before == InstanceState.Standby);
        }

        run.StartDone.TrySetResult();
        run.Ended.SetResult();
        _ = delete?.Invoke();
    }

    // Under the lock. What is returned is to be called outside of it: it deletes an instance that is not to outlive its stop.
    private Func<Task>? EndRun(InstanceRun run, bool inStandby)
    {
        _status.Run = null;
        run.Dispose();
        Connections.OnEnded();
        _platform.Quotas.LeaveLive(run.Configuration);
        Updates.Apply();
        _status.Transition(inStandby ? InstanceTrigger.ScaledToZero : InstanceTrigger.Ended);
        return run.NoRestart || run.Escalation is not null ? BeginDeleteOnStop() : null;
    }

    // Under the lock.
    private Func<Task>? BeginDeleteOnStop()
    {
        if (!_status.Policies.Features.HasFlag(InstanceFeatures.DeleteOnStop)
            || _status.IsClosed
            || !_status.Published.IsCompleted
            || Retention.TryRemove() is not { } release)
        {
            return null;
        }

        // The release closes the instance too, but later: nobody may start it in between.
        Refuse(() => new ResourceNotFoundException("instance", _identity.Uuid));
        return () =>
        {
            _platform.Logger.DeletedOnStop(_identity.Name, _identity.Uuid);
            return release();
        };
    }

    // Under the lock.
    private void Refuse(Func<Exception> refusal)
    {
        if (_status.IsClosed)
        {
            return;
        }

        _status.Close(refusal);
        _started.TrySetException(refusal());
        // Nobody may be waiting, and then nobody observes the error.
        _ = _started.Task.Exception;
    }

    private async Task AwaitEndAsync(InstanceRun run)
    {
        // Whoever completes this task must not be the one who tears the machine down.
        await ((Task)run.Machine!.Exited).ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        MachineExit exit = await run.Machine.Exited.ConfigureAwait(false);

        // The news of main may still be on its way.
        OnMainReached(run);
        run.Escalation!.Dispose();
        TimeSpan cpuTime = run.Machine.GetFeature<IMachineStatistics>()?.CpuTime ?? default;
        StopOutcome outcome;
        SnapshotReference? used;
        TimeSpan? restartDelay;
        int restartAttempt;
        Func<Task>? delete;
        lock (_status.Sync)
        {
            outcome = run.Suspension is null
                ? StopOutcome.Compose(run.Initiator, run.Forced, exit)
                : StopOutcome.Suspended(run.Initiator);
            used = Snapshots.EndRun();
            if (run.Suspension is { } memory)
            {
                Snapshots.SetNext(memory);
            }

            _status.Last = PastRun.Of(run, outcome, cpuTime, Time);
            restartDelay = _restarts.Follow(run, outcome);
            restartAttempt = _status.Restart?.Attempt ?? 0;
            _started = _status.IsClosed ? _started : NewStarted();
            _teardown = _teardown.IsCompleted ? run.TornDown.Task : Task.WhenAll(_teardown, run.TornDown.Task);
            delete = EndRun(run, run.EndsInStandby);
        }

        used?.Dispose();
        run.Ended.SetResult();
        _reports.Stopped(outcome, exit);
        if (restartDelay is { } delay)
        {
            _reports.RestartScheduled(delay, restartAttempt);
        }

        await DisposeAsync(run.Machine).ConfigureAwait(false);
        _platform.Volumes.OnEnded(_identity.Uuid);
        run.TornDown.SetResult();
        if (delete is not null)
        {
            await delete().ConfigureAwait(false);
        }
    }

    private async Task CloseAsync(InstanceRun? run)
    {
        if (run is not null)
        {
            ApplyStop(run, StopPlan.Forced);
            await run.Ended.Task.ConfigureAwait(false);
        }

        Retention.Dispose();
        lock (_status.Sync)
        {
            _status.End();
        }

        await TornDownAsync().ConfigureAwait(false);
        SnapshotReference? snapshot;
        lock (_status.Sync)
        {
            snapshot = Snapshots.TakeNext();
        }

        snapshot?.Dispose();
        await _platform.Volumes.ForgetAsync(_identity.Uuid).ConfigureAwait(false);
        Log.Complete();
    }

    private Task TornDownAsync()
    {
        lock (_status.Sync)
        {
            return _teardown;
        }
    }

    private async Task DisposeAsync(IVirtualMachine machine)
    {
        try
        {
            await machine.DisposeAsync().ConfigureAwait(false);
        }
        catch (Exception error)
        {
            _reports.TeardownFailed(error);
        }
    }

    // Under the lock. Returns the run to stop, which is then to be passed to ApplyStop outside of the lock.
    private InstanceRun? NoteStop(StopInitiator initiator, StopPlan plan)
    {
        _restarts.Abort();
        if (_status.Run is not { } run)
        {
            _status.NoteUse();
            _status.Changed?.Invoke();
            return null;
        }

        run.NoRestart = true;
        run.EndsInStandby = false;
        run.Forced |= plan.Force;
        run.Drain?.Dispose();
        if (run.Machine is not { Exited.IsCompleted: true })
        {
            run.Initiator |= initiator;
        }

        if (InstanceLifecycle.Allows(_status.State, InstanceTrigger.StopRequested))
        {
            _status.Transition(InstanceTrigger.StopRequested);
        }

        Connections.WatchIdleness();
        if (run.Escalation is null)
        {
            run.StopWhenStarted = plan.GracePeriod;
            _ = run.AbandonAsync();
        }

        return run;
    }

    // Under the lock.
    private InstanceRun NoteDrain(StopInitiator initiator, StopPlan plan)
    {
        _restarts.Abort();
        InstanceRun run = _status.Run!;
        run.NoRestart = true;
        run.Initiator |= initiator;
        run.Drain ??= new ConnectionDrain(Time, () => EndDrain(run));
        run.Drain.Limit(plan.DrainTimeout, plan.GracePeriod);
        if (InstanceLifecycle.Allows(_status.State, InstanceTrigger.DrainRequested))
        {
            _status.Transition(InstanceTrigger.DrainRequested);
            Connections.WatchIdleness();
        }

        return run;
    }

    private static void ApplyStop(InstanceRun run, StopPlan plan)
    {
        if (run.Escalation is not { } escalation)
        {
            return;
        }

        if (plan.Force)
        {
            run.Machine!.Kill();
        }
        else
        {
            escalation.Begin(plan.GracePeriod);
        }
    }

    // Under the lock.
    private bool EnterRunning(InstanceRun run, long? since)
    {
        if (_status.Run != run || run.RunningSince is not null || since is not { } timestamp)
        {
            return false;
        }

        run.RunningSince = timestamp;
        run.BootTime = WholeMicroseconds(Time.GetElapsedTime(run.StartTimestamp, timestamp));
        if (InstanceLifecycle.Allows(_status.State, InstanceTrigger.MainReached))
        {
            _status.Transition(InstanceTrigger.MainReached);
            Connections.WatchIdleness();
        }

        return true;
    }

    private static TimeSpan WholeMicroseconds(TimeSpan time) =>
        TimeSpan.FromTicks((time.Ticks + (TimeSpan.TicksPerMicrosecond / 2)) / TimeSpan.TicksPerMicrosecond * TimeSpan.TicksPerMicrosecond);
}

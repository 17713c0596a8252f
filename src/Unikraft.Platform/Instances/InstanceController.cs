using System.Collections.Immutable;
using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Instances;

/// <summary>The owner of one instance: every change of its state happens here, by <see cref="Transition"/>.</summary>
/// <remarks>
/// Rule for the lock: it guards the fields below it and is held only to read and write them. Nothing that may block, run foreign code or take
/// another lock is called under it: no machine, no logger, no snapshot, no await. Completing a waiter is allowed, because continuations run
/// elsewhere; so is setting up a timer. Within it only the locks of the retention and of the transition logs are taken, which have to hear of states in
/// their order. Threads of vCPUs never take it.
/// </remarks>
[SuppressMessage("Design", "CA1001:Types that own disposable fields should be disposable", Justification = "A run is disposed of when it ends.")]
internal sealed class InstanceController
{
    private readonly PlatformContext _platform;
    private readonly ResourceIdentity _identity;
    private readonly InstanceConfiguration _configuration;
    private readonly RestartPolicy _restartPolicy;
    private readonly InstanceOrigin? _origin;
    private readonly InstanceTransitions _transitions;
    private readonly IGuestRequests _requests;

    private readonly Lock _lock = new();
    private readonly List<Waiter> _waiters = [];
    private readonly SnapshotTurns _snapshotTurns = new();
    private readonly TaskCompletionSource _published = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<Task> _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private InstanceState _state;
    private InstanceRun? _run;
    private PastRun? _last;
    private RestartSequence? _restart;
    private SnapshotReference? _snapshot;
    private ImmutableList<CheckpointReference> _history;
    private TaskCompletionSource<InstanceRun> _started = NewStarted();
    private Task _teardown = Task.CompletedTask;
    private Func<Exception>? _refusal;
    private int _startCount;
    private int _restartCount;

    public InstanceController(
        PlatformContext platform,
        ResourceIdentity identity,
        Blueprint blueprint,
        RestartPolicy restartPolicy,
        Retention retention,
        InstanceTransitions transitions,
        IGuestRequests requests)
    {
        _transitions = transitions;
        _transitions.Add(from: null, _state, stopReason: null);
        Retention = retention;
        _requests = requests;
        _platform = platform;
        _identity = identity;
        _configuration = blueprint.Configuration;
        _restartPolicy = restartPolicy;
        _origin = blueprint.Origin;
        _snapshot = blueprint.Snapshot;
        _history = blueprint.History;
        Log = new InstanceLog(platform.Settings.LogCapacityBytes);
    }

    public ResourceIdentity Identity => _identity;

    public InstanceOrigin? Origin => _origin;

    public InstanceLog Log { get; }

    /// <summary>How long the instance is kept.</summary>
    public Retention Retention { get; }

    public ImmutableList<CheckpointReference> History
    {
        get
        {
            lock (_lock)
            {
                return _history;
            }
        }
    }

    private TimeProvider Time => _platform.TimeProvider;

    public Instance Describe()
    {
        lock (_lock)
        {
            return DescribeLocked();
        }
    }

    /// <summary>The instance can be found: requests of its guest are served from now on, and its autokill policy holds.</summary>
    public void Publish()
    {
        lock (_lock)
        {
            _published.TrySetResult();
            _transitions.Publish();
            NoteUse();
        }
    }

    /// <summary>Starts the stopped instance, and returns when its vCPUs run.</summary>
    public Task StartAsync(CancellationToken cancellationToken) => StartAsync(restart: null, cancellationToken);

    /// <summary>Stops the instance and waits until it is stopped.</summary>
    public async Task<Instance> StopAsync(StopInitiator initiator, bool force, TimeSpan gracePeriod, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        using Activity? activity = _platform.Telemetry.Begin(TelemetryNames.StopActivity, _identity);
        InstanceRun? run;
        lock (_lock)
        {
            ThrowIfClosed();
            run = NoteStop(initiator, force, gracePeriod);
        }

        if (run is not null)
        {
            ApplyStop(run, force, gracePeriod);
            await run.Ended.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        }

        return Describe();
    }

    /// <summary>Stops the instance on behalf of the platform and waits until nothing of its machine is left. A closed one is fine.</summary>
    public async Task ShutDownAsync(bool force)
    {
        TimeSpan gracePeriod = _platform.Settings.StopGracePeriod;
        InstanceRun? run;
        lock (_lock)
        {
            run = _refusal is null ? NoteStop(StopInitiator.Platform, force, gracePeriod) : _run;
        }

        if (run is not null)
        {
            ApplyStop(run, force, gracePeriod);
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
        lock (_lock)
        {
            if (_refusal is not null)
            {
                return _closed.Task.Unwrap();
            }

            _refusal = refusal;
            foreach (Waiter waiter in _waiters)
            {
                waiter.Fail(refusal());
            }

            _waiters.Clear();
            Fail(_started, refusal());
            _published.TrySetResult();
            run = NoteStop(initiator, force: true, TimeSpan.Zero);
        }

        _closed.SetResult(CloseAsync(run));
        return _closed.Task.Unwrap();
    }

    /// <summary>Every change of the state from now on.</summary>
    public IAsyncEnumerable<InstanceTransition> WatchAsync(CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            ThrowIfClosed();
            return _transitions.WatchAsync(cancellationToken);
        }
    }

    /// <summary>Waits until the instance is in a state.</summary>
    public Task<Instance> WaitAsync(InstanceState state, TimeSpan? timeout, CancellationToken cancellationToken)
    {
        Waiter waiter;
        lock (_lock)
        {
            ThrowIfClosed();
            if (_state == state)
            {
                return Task.FromResult(DescribeLocked());
            }

            waiter = AddWaiter(() => _state == state);
        }

        return AwaitAsync(waiter, state, timeout, cancellationToken);
    }

    /// <summary>
    /// Expects the coming start to succeed. The result must be called after the start; it waits for the app to reach its main entry point.
    /// </summary>
    public Func<TimeSpan, CancellationToken, Task<Instance>> ExpectRunning()
    {
        Waiter waiter;
        lock (_lock)
        {
            waiter = AddWaiter(() => _state == InstanceState.Running || (_state == InstanceState.Stopped && _restart is null));
        }

        return async (timeout, cancellationToken) =>
        {
            Instance reached = await AwaitAsync(waiter, InstanceState.Running, timeout, cancellationToken).ConfigureAwait(false);
            return reached.State == InstanceState.Running
                ? reached
                : throw new WrongStateException(
                    $"Instance '{_identity.Name}' stopped before it was running: stop reason "
                    + $"{reached.StopReason?.ToMask()} ({(int?)reached.StopReason}), stop code {reached.StopCode?.Describe() ?? "none"}",
                    reached.State);
        };
    }

    /// <summary>Begins to clone the instance. When it runs, <see cref="CaptureAsync"/> must follow.</summary>
    /// <param name="purpose">What for.</param>
    /// <param name="onlyIn">The only run to clone, if it matters.</param>
    /// <param name="waitForPending">Whether to wait for other snapshots of the instance, instead of failing.</param>
    /// <param name="cancellationToken">Cancels the waiting.</param>
    public async Task<CloneSource> BeginCloneAsync(
        ClonePurpose purpose,
        InstanceRun? onlyIn,
        bool waitForPending,
        CancellationToken cancellationToken)
    {
        Task turn;
        lock (_lock)
        {
            if (!waitForPending || _state != InstanceState.Running)
            {
                return BeginClone(purpose, onlyIn, hasTurn: false);
            }

            turn = _snapshotTurns.TakeAsync(cancellationToken);
        }

        await turn.ConfigureAwait(false);
        lock (_lock)
        {
            bool keepsTurn = false;
            try
            {
                CloneSource clone = BeginClone(purpose, onlyIn, hasTurn: true);
                keepsTurn = clone.Machine is not null;
                return clone;
            }
            finally
            {
                if (!keepsTurn)
                {
                    _snapshotTurns.Pass();
                }
            }
        }
    }

    /// <summary>
    /// Takes the snapshot of a clone that was begun while the instance ran. When that becomes a template it stands still from then on, unless this
    /// fails.
    /// </summary>
    /// <param name="source">What was begun.</param>
    /// <param name="purpose">What for.</param>
    /// <param name="pauseBudget">The longest that the instance should stand still; that of the platform when <see langword="null"/>.</param>
    /// <param name="cancellationToken">Cancels the snapshot.</param>
    public async Task<SnapshotReference> CaptureAsync(
        CloneSource source,
        ClonePurpose purpose,
        TimeSpan? pauseBudget,
        CancellationToken cancellationToken)
    {
        try
        {
            // Whatever a listener of the host does, the turn is passed on.
            using Activity? activity = _platform.Telemetry.Begin(TelemetryNames.CaptureActivity, _identity);
            CaptureOptions options = new() { PauseBudget = pauseBudget ?? _platform.Settings.SnapshotPauseBudget };
            return new SnapshotReference(purpose == ClonePurpose.Template
                ? await FreezeAsync(source.Machine!, cancellationToken).ConfigureAwait(false)
                : await CaptureRunningAsync(source.Machine!, options, cancellationToken).ConfigureAwait(false));
        }
        catch (Exception error) when (error is MachineExitedException or ObjectDisposedException)
        {
            lock (_lock)
            {
                ThrowIfClosed();
            }

            throw purpose.WrongState(_identity.Name, InstanceState.Stopped);
        }
        finally
        {
            lock (_lock)
            {
                _snapshotTurns.Pass();
            }
        }
    }

    public void AddCheckpoint(CheckpointReference checkpoint)
    {
        lock (_lock)
        {
            _history = _history.Insert(0, checkpoint);
        }
    }

    public void RemoveCheckpoint(CheckpointReference checkpoint)
    {
        lock (_lock)
        {
            _history = _history.Remove(checkpoint);
        }
    }

    /// <summary>Gives the machine input, as soon as one runs.</summary>
    /// <returns>How many bytes it took, at least 1.</returns>
    public async Task<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken)
    {
        while (true)
        {
            Task<InstanceRun> started;
            lock (_lock)
            {
                ThrowIfClosed();
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
        lock (_lock)
        {
            entered = EnterRunning(run, run.MainTimestamp);
        }

        if (entered)
        {
            ReportRunning(run, restored: false);
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

    // Nobody may be waiting, and then nobody observes the error.
    private static void Fail<T>(TaskCompletionSource<T> completion, Exception error)
    {
        completion.TrySetException(error);
        _ = completion.Task.Exception;
    }

    // The one place where the state changes. Under the lock.
    private void Transition(InstanceTrigger trigger)
    {
        InstanceState before = _state;
        _state = InstanceLifecycle.Next(_state, trigger)
            ?? throw new InvalidOperationException($"The trigger {trigger} is not allowed in the state {_state}.");
        _transitions.Add(before, _state, StopReason());
        NoteUse();
        Instance? reached = null;
        for (int i = _waiters.Count - 1; i >= 0; i--)
        {
            Waiter waiter = _waiters[i];
            if (waiter.IsMet())
            {
                waiter.Completion.TrySetResult(reached ??= DescribeLocked());
                _waiters.RemoveAt(i);
            }
        }
    }

    // Under the lock. Waiting for a restart by the policy is use; so is everything before the instance can be found.
    private void NoteUse() =>
        Retention.SetUnused(_published.Task.IsCompleted && _state == InstanceState.Stopped && _restart is null);

    // Under the lock.
    private CloneSource BeginClone(ClonePurpose purpose, InstanceRun? onlyIn, bool hasTurn)
    {
        ThrowIfClosed();
        if (onlyIn is not null && onlyIn != _run)
        {
            throw purpose.WrongState(_identity.Name, InstanceState.Stopped);
        }

        return _state switch
        {
            InstanceState.Running when hasTurn || _snapshotTurns.TryTake() =>
                new CloneSource(_identity, _configuration, _history, _run!.Machine, Snapshot: null),
            InstanceState.Running => throw purpose.SnapshotPending(_identity.Name),
            InstanceState.Stopped or InstanceState.Standby =>
                new CloneSource(_identity, _configuration, _history, Machine: null, _snapshot?.Share()),
            _ => throw purpose.WrongState(_identity.Name, _state),
        };
    }

    private async Task<IMachineSnapshot> CaptureRunningAsync(
        IVirtualMachine machine,
        CaptureOptions options,
        CancellationToken cancellationToken)
    {
        IMachineSnapshot snapshot = await machine.CaptureAsync(options, cancellationToken).ConfigureAwait(false);
        _platform.Telemetry.Paused(snapshot.Pause);
        return snapshot;
    }

    private async Task<IMachineSnapshot> FreezeAsync(IVirtualMachine machine, CancellationToken cancellationToken)
    {
        // What the guest did after the snapshot would be lost, and could be seen from outside.
        await machine.PauseAsync(cancellationToken).ConfigureAwait(false);
        IMachineSnapshot? snapshot = null;
        try
        {
            snapshot = await machine.CaptureAsync(cancellationToken).ConfigureAwait(false);
            lock (_lock)
            {
                ThrowIfClosed();
                return _state == InstanceState.Running && _run?.Machine == machine
                    ? snapshot
                    : throw ClonePurpose.Template.WrongState(_identity.Name, _state);
            }
        }
        catch
        {
            snapshot?.Dispose();
            machine.Resume();
            throw;
        }
    }

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

        await Task.WhenAll(run.StartDone.Task, _published.Task).ConfigureAwait(false);
        // The news of main may still be on its way.
        OnMainReached(run);
        try
        {
            await serve().ConfigureAwait(false);
        }
        catch (Exception error)
        {
            _platform.Logger.GuestRequestRefused(error, _identity.Name, _identity.Uuid, request);
            run.Machine?.RefuseRequest(error is PlatformException { Code: PlatformErrorCode.SnapshotPending }
                ? GuestRequestRefusal.Busy
                : GuestRequestRefusal.TryAgain);
        }
    }

    private async Task StartAsync(RestartSequence? restart, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        using Activity? activity = _platform.Telemetry.Begin(TelemetryNames.StartActivity, _identity);
        InstanceRun run;
        SnapshotReference? snapshot;
        lock (_lock)
        {
            ThrowIfClosed();
            if (restart is not null && (restart != _restart || !restart.IsPending))
            {
                return;
            }

            if (!InstanceLifecycle.Allows(_state, InstanceTrigger.Start))
            {
                throw new WrongStateException($"Cannot start instance '{_identity.Name}' in state '{_state.ToText()}'", _state);
            }

            if (restart is null)
            {
                AbortRestart();
            }
            else
            {
                restart.IsPending = false;
                restart.NextAt = null;
                _restartCount++;
            }

            run = _run = new InstanceRun(this, Time);
            snapshot = _snapshot?.Share();
            _startCount++;
            Transition(InstanceTrigger.Start);
        }

        try
        {
            using var either = CancellationTokenSource.CreateLinkedTokenSource(
                cancellationToken,
                run.Abandoned,
                _platform.Rundown.Closing);
            run.Machine = snapshot is null
                ? await _platform.Hypervisor.CreateAsync(_configuration.ForMachine(_identity), run, either.Token).ConfigureAwait(false)
                : await _platform.Hypervisor.RestoreAsync(snapshot.Snapshot, _identity.Uuid, run, either.Token).ConfigureAwait(false);
            await run.Machine.StartAsync(either.Token).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            await FailStartAsync(run, restart is not null).ConfigureAwait(false);
            if (error is OperationCanceledException && !cancellationToken.IsCancellationRequested)
            {
                _platform.Rundown.ThrowIfClosed();
                lock (_lock)
                {
                    ThrowIfClosed();
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
        TimeSpan? stop;
        bool forced, entered;
        lock (_lock)
        {
            run.Escalation = new StopEscalation(run.Machine!, Time, killed => ReportEscalation(killed));
            (stop, forced) = (run.StopWhenStarted, run.Forced);
            (used, _snapshot) = (_snapshot, null);
            entered = restored && run.Machine!.HasReachedMain && EnterRunning(run, now);
            _started.TrySetResult(run);
        }

        run.StartDone.TrySetResult();
        used?.Dispose();
        if (isRestart)
        {
            _platform.Telemetry.Restarted();
        }

        if (entered)
        {
            ReportRunning(run, restored);
        }

        if (stop is { } gracePeriod)
        {
            ApplyStop(run, forced, gracePeriod);
        }

        _ = AwaitEndAsync(run);
    }

    private async Task FailStartAsync(InstanceRun run, bool isRestart)
    {
        if (run.Machine is { } machine)
        {
            await DisposeAsync(machine).ConfigureAwait(false);
        }

        lock (_lock)
        {
            if (run.NoRestart)
            {
                // A stop came in between, which is how this run ended.
                _last = PastRun.Of(run, StopOutcome.Compose(run.Initiator, run.Forced, exit: null), Time);
            }
            else
            {
                _startCount--;
                _restartCount -= isRestart ? 1 : 0;
            }

            _run = null;
            run.Dispose();
            Transition(InstanceTrigger.Ended);
        }

        run.StartDone.TrySetResult();
        run.Ended.SetResult();
    }

    private async Task AwaitEndAsync(InstanceRun run)
    {
        // Whoever completes this task must not be the one who tears the machine down.
        await ((Task)run.Machine!.Exited).ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        MachineExit exit = await run.Machine.Exited.ConfigureAwait(false);

        // The news of main may still be on its way.
        OnMainReached(run);
        run.Escalation!.Dispose();
        StopOutcome outcome;
        RestartSequence? restart;
        TimeSpan delay;
        lock (_lock)
        {
            outcome = StopOutcome.Compose(run.Initiator, run.Forced, exit);
            _last = PastRun.Of(run, outcome, Time);
            bool wanted = !run.NoRestart && _refusal is null && RestartBackoff.Wants(_restartPolicy, outcome);
            int attempt = IsHealthy(run) ? 1 : (_restart?.Attempt ?? 0) + 1;
            AbortRestart();
            _run = null;
            run.Dispose();
            _started = _refusal is null ? NewStarted() : _started;
            _teardown = _teardown.IsCompleted ? run.TornDown.Task : Task.WhenAll(_teardown, run.TornDown.Task);
            delay = wanted ? PrepareRestart(attempt) : default;
            restart = _restart;
            Transition(InstanceTrigger.Ended);
        }

        run.Ended.SetResult();
        ReportStopped(outcome, exit);
        if (restart is not null)
        {
            _platform.Logger.RestartScheduled(_identity.Name, _identity.Uuid, delay, restart.Attempt);
        }

        await DisposeAsync(run.Machine).ConfigureAwait(false);
        run.TornDown.SetResult();
    }

    private async Task CloseAsync(InstanceRun? run)
    {
        if (run is not null)
        {
            ApplyStop(run, force: true, TimeSpan.Zero);
            await run.Ended.Task.ConfigureAwait(false);
        }

        Retention.Dispose();
        lock (_lock)
        {
            _transitions.Add(_state, to: null, StopReason());
            _transitions.Complete();
        }

        await TornDownAsync().ConfigureAwait(false);
        SnapshotReference? snapshot;
        lock (_lock)
        {
            (snapshot, _snapshot) = (_snapshot, null);
        }

        snapshot?.Dispose();
        Log.Complete();
    }

    private Task TornDownAsync()
    {
        lock (_lock)
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
            _platform.Logger.TeardownFailed(error, _identity.Name, _identity.Uuid);
        }
    }

    // Under the lock. Returns the run to stop, which is then to be passed to ApplyStop outside of the lock.
    private InstanceRun? NoteStop(StopInitiator initiator, bool force, TimeSpan gracePeriod)
    {
        AbortRestart();
        if (_run is not { } run)
        {
            NoteUse();
            return null;
        }

        run.NoRestart = true;
        run.Forced |= force;
        if (run.Machine is not { Exited.IsCompleted: true })
        {
            run.Initiator |= initiator;
        }

        if (InstanceLifecycle.Allows(_state, InstanceTrigger.StopRequested))
        {
            Transition(InstanceTrigger.StopRequested);
        }

        if (run.Escalation is null)
        {
            run.StopWhenStarted = gracePeriod;
            _ = run.AbandonAsync();
        }

        return run;
    }

    private static void ApplyStop(InstanceRun run, bool force, TimeSpan gracePeriod)
    {
        if (run.Escalation is not { } escalation)
        {
            return;
        }

        if (force)
        {
            run.Machine!.Kill();
        }
        else
        {
            escalation.Begin(gracePeriod);
        }
    }

    // Under the lock.
    private bool EnterRunning(InstanceRun run, long? since)
    {
        if (_run != run || run.RunningSince is not null || since is not { } timestamp)
        {
            return false;
        }

        run.RunningSince = timestamp;
        run.BootTime = WholeMicroseconds(Time.GetElapsedTime(run.StartTimestamp, timestamp));
        if (InstanceLifecycle.Allows(_state, InstanceTrigger.MainReached))
        {
            Transition(InstanceTrigger.MainReached);
        }

        return true;
    }

    // Under the lock. A restart without delay is only set off here: it begins on another thread.
    private TimeSpan PrepareRestart(int attempt)
    {
        TimeSpan delay = RestartBackoff.Delay(attempt);
        RestartSequence sequence = _restart = new RestartSequence(attempt);
        if (delay == TimeSpan.Zero)
        {
            _ = RestartAsync(sequence);
        }
        else
        {
            sequence.NextAt = Time.GetUtcNow() + delay;
            sequence.Timer = Time.CreateTimer(_ => _ = RestartAsync(sequence), state: null, delay, Timeout.InfiniteTimeSpan);
        }

        return delay;
    }

    private async Task RestartAsync(RestartSequence sequence)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        using Rundown.Scope? scope = _platform.Rundown.TryEnter();
        if (scope is null)
        {
            return;
        }

        try
        {
            await StartAsync(sequence, CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            if (IsCurrent())
            {
                _platform.Logger.InstanceStartFailed(error, _identity.Name, _identity.Uuid);
            }

            lock (_lock)
            {
                if (_restart == sequence)
                {
                    sequence.Timer?.Dispose();
                    PrepareRestart(sequence.Attempt + 1);
                }
            }
        }

        bool IsCurrent()
        {
            lock (_lock)
            {
                return _restart == sequence;
            }
        }
    }

    // Under the lock.
    private void AbortRestart()
    {
        _restart?.Timer?.Dispose();
        _restart = null;
    }

    // Under the lock. The sequence ends by the passing of time alone, so that it needs no timer.
    private bool IsHealthy(InstanceRun run) =>
        run.RunningSince is { } since && Time.GetElapsedTime(since) >= RestartBackoff.HealthyAfter;

    private Waiter AddWaiter(Func<bool> isMet)
    {
        Waiter waiter = new(isMet);
        _waiters.Add(waiter);
        return waiter;
    }

    private async Task<Instance> AwaitAsync(Waiter waiter, InstanceState state, TimeSpan? timeout, CancellationToken cancellationToken)
    {
        try
        {
            return await waiter.Completion.Task
                .WaitAsync(timeout ?? Timeout.InfiniteTimeSpan, Time, cancellationToken)
                .ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            Instance now = Describe();
            throw new OperationTimedOutException(
                now,
                $"Operation timed out: instance '{now.Name}' is in state '{now.State.ToText()}', not '{state.ToText()}'");
        }
        finally
        {
            lock (_lock)
            {
                _waiters.Remove(waiter);
            }
        }
    }

    private void ThrowIfClosed()
    {
        if (_refusal is { } refusal)
        {
            throw refusal();
        }
    }

    // Under the lock.
    private StopReason? StopReason() => (_state, _run) switch
    {
        (InstanceState.Stopping, { } run) => StopOutcome.Compose(run.Initiator, run.Forced, exit: null).Reason,
        (_, null) => _last?.Outcome.Reason,
        _ => null,
    };

    private Instance DescribeLocked()
    {
        ResourceMetadata metadata = Retention.Metadata;
        InstanceRun? run = _run;
        PastRun? past = run is null ? _last : null;
        bool restarting = _restart is not null && !(run is not null && IsHealthy(run));
        return new Instance
        {
            Uuid = _identity.Uuid,
            Name = _identity.Name,
            CreatedAt = _identity.CreatedAt,
            State = _state,
            Image = _configuration.Image.Name,
            Vcpus = _configuration.Vcpus,
            MemoryMb = _configuration.MemoryMb,
            Args = _configuration.Args,
            Env = _configuration.Env,
            RestartPolicy = _restartPolicy,
            Origin = _origin,
            StartCount = _startCount,
            RestartCount = _restartCount,
            Restart = restarting ? new RestartStatus(_restart!.Attempt, _restart.NextAt) : null,
            StartedAt = run?.StartedAt ?? past?.StartedAt,
            StoppedAt = _last?.StoppedAt,
            Uptime = run is null ? past?.Uptime ?? default : Time.GetElapsedTime(run.StartTimestamp),
            BootTime = run is null ? past?.BootTime : run.BootTime,
            StopReason = StopReason(),
            ExitCode = past?.Outcome.ExitCode,
            StopCode = past?.Outcome.StopCode,
            Fault = past?.Outcome.Fault,
            Tags = metadata.Tags,
            DeleteLock = metadata.DeleteLock,
            Autokill = metadata.Autokill,
        };
    }

    private static TimeSpan WholeMicroseconds(TimeSpan time) =>
        TimeSpan.FromTicks((time.Ticks + (TimeSpan.TicksPerMicrosecond / 2)) / TimeSpan.TicksPerMicrosecond * TimeSpan.TicksPerMicrosecond);

    private void ReportRunning(InstanceRun run, bool restored)
    {
        TimeSpan bootTime = run.BootTime!.Value;
        _platform.Telemetry.Started(bootTime, restored);
        _platform.Logger.InstanceRunning(_identity.Name, _identity.Uuid, bootTime);
    }

    private void ReportStopped(StopOutcome outcome, MachineExit exit)
    {
        _platform.Telemetry.Stopped(outcome.Reason);
        if (exit is MachineExit.Failed failed)
        {
            _platform.Logger.MachineFailed(failed.Error, _identity.Name, _identity.Uuid);
        }

        if (outcome.IsCrash)
        {
            _platform.Logger.InstanceCrashed(
                _identity.Name,
                _identity.Uuid,
                outcome.Reason.ToMask(),
                outcome.StopCode?.Describe(),
                outcome.Fault);
        }
        else
        {
            _platform.Logger.InstanceStopped(
                _identity.Name,
                _identity.Uuid,
                outcome.Reason.ToMask(),
                outcome.ExitCode,
                outcome.StopCode);
        }
    }

    private void ReportEscalation(bool machineKilled)
    {
        if (machineKilled)
        {
            _platform.Logger.KillingMachine(_identity.Name, _identity.Uuid);
        }
        else
        {
            _platform.Logger.KillingApp(_identity.Name, _identity.Uuid);
        }
    }

    private sealed class Waiter(Func<bool> isMet)
    {
        public TaskCompletionSource<Instance> Completion { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public bool IsMet() => isMet();

        public void Fail(Exception error) => InstanceController.Fail(Completion, error);
    }

    private sealed record PastRun(DateTimeOffset StartedAt, DateTimeOffset StoppedAt, TimeSpan Uptime, TimeSpan? BootTime, StopOutcome Outcome)
    {
        public static PastRun Of(InstanceRun run, StopOutcome outcome, TimeProvider time) =>
            new(run.StartedAt, time.GetUtcNow(), time.GetElapsedTime(run.StartTimestamp), run.BootTime, outcome);
    }
}

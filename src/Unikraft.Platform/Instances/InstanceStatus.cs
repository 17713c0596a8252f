using System.Collections.Immutable;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Instances;

/// <summary>The state of one instance and what is told of it: to callers who ask, to those who wait for a state and to those who watch.</summary>
/// <remarks>
/// Rule for the lock: it guards everything here, and is held only to read and write it. Nothing that may block, run foreign code or take
/// another lock is called under it: no machine, no logger, no snapshot, no await. Completing a waiter is allowed, because continuations run
/// elsewhere; so is setting up a timer. Within it only the locks of the retention and of the transition logs are taken, which have to hear of states in
/// their order. Threads of vCPUs never take it.
/// </remarks>
internal sealed class InstanceStatus
{
    private readonly TimeProvider _time;
    private readonly InstanceOrigin? _origin;
    private readonly InstanceTransitions _transitions;
    private readonly List<Waiter> _waiters = [];
    private readonly TaskCompletionSource _published = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Func<Exception>? _refusal;
    private InstanceStates _passed;

    public InstanceStatus(
        TimeProvider time,
        ResourceIdentity identity,
        Blueprint blueprint,
        InstancePolicies policies,
        Retention retention,
        InstanceTransitions transitions)
    {
        _time = time;
        Identity = identity;
        Configuration = blueprint.Configuration;
        _origin = blueprint.Origin;
        Policies = policies;
        Retention = retention;
        _transitions = transitions;
        _passed = InstanceStates.None.With(State);
        _transitions.Add(from: null, State, stopReason: null);
    }

    /// <summary>The lock of the instance.</summary>
    public Lock Sync { get; } = new();

    public ResourceIdentity Identity { get; }

    public Retention Retention { get; }

    /// <summary>Called under the lock when something has changed that is to be kept.</summary>
    public Action? Changed { get; set; }

    /// <summary>Whether the instance can be found, and is not going.</summary>
    public bool IsKept => _published.Task.IsCompleted && _refusal is null;

    public InstanceOrigin? Origin => _origin;

    public InstanceTransitions Transitions => _transitions;

    /// <summary>Completes when the instance can be found, or never will be.</summary>
    public Task Published => _published.Task;

    public InstanceState State { get; private set; }

    /// <summary>What the next machine is made of, unless it is restored.</summary>
    public InstanceConfiguration Configuration { get; set; }

    /// <summary>Changes of the configuration that wait for the instance to boot its image.</summary>
    public ImmutableList<PatchOperation> Updates { get; set; } = [];

    /// <summary>What the instance does by itself.</summary>
    public InstancePolicies Policies { get; set; }

    /// <summary>Goes on in standby, where a platform before has left off. Before it can be found.</summary>
    public void RestoreStandby()
    {
        State = InstanceState.Standby;
        _passed = InstanceStates.None.With(State);
    }

    /// <summary>The run under way, from its start to the end of its machine.</summary>
    public InstanceRun? Run { get; set; }

    /// <summary>The run before.</summary>
    public PastRun? Last { get; set; }

    public RestartSequence? Restart { get; set; }

    /// <summary>Whether there is a snapshot that the next start continues from.</summary>
    public bool HasSnapshot { get; set; }

    /// <summary>Lists the volumes.</summary>
    public Func<IReadOnlyList<AttachedVolume>>? Volumes { get; set; }

    /// <summary>Lists the ROMs.</summary>
    public Func<IReadOnlyList<InstanceRom>>? Roms { get; set; }

    public int StartCount { get; set; }

    public int RestartCount { get; set; }

    /// <summary>Whether everything that is asked of the instance is refused, because it is gone or going.</summary>
    public bool IsClosed => _refusal is not null;

    public void ThrowIfClosed()
    {
        if (_refusal is { } refusal)
        {
            throw refusal();
        }
    }

    /// <summary>The instance can be found: its autokill policy holds, and those who watch hear of it.</summary>
    public void Publish()
    {
        _published.TrySetResult();
        _transitions.Publish();
        NoteUse();
        Changed?.Invoke();
    }

    /// <summary>Refuses whatever is asked from now on, and whoever waits for something.</summary>
    public void Close(Func<Exception> refusal)
    {
        _refusal = refusal;
        foreach (Waiter waiter in _waiters)
        {
            waiter.Fail(refusal());
        }

        _waiters.Clear();
        _published.TrySetResult();
    }

    /// <summary>Nothing happens to the instance any more.</summary>
    public void End()
    {
        _transitions.Add(State, to: null, StopReason());
        _transitions.Complete();
    }

    /// <summary>The one place where the state changes.</summary>
    public void Transition(InstanceTrigger trigger)
    {
        InstanceState before = State;
        State = InstanceLifecycle.Next(State, trigger)
            ?? throw new InvalidOperationException($"The trigger {trigger} is not allowed in the state {State}.");
        // A start begins anew: who starts an instance and then waits does not see the run before.
        _passed = (trigger == InstanceTrigger.Start ? InstanceStates.None : _passed).With(State);
        _transitions.Add(before, State, StopReason());
        NoteUse();
        Changed?.Invoke();
        Instance? reached = null;
        for (int i = _waiters.Count - 1; i >= 0; i--)
        {
            Waiter waiter = _waiters[i];
            if (waiter.IsMet())
            {
                waiter.Completion.TrySetResult(reached ??= Describe());
                _waiters.RemoveAt(i);
            }
        }
    }

    /// <summary>Tells the retention whether the instance is used. Waiting for a restart by the policy is use; so is everything before it can be found.</summary>
    public void NoteUse() => Retention.SetUnused(_published.Task.IsCompleted && State == InstanceState.Stopped && Restart is null);

    /// <summary>Whether a run has lasted so long that its restart sequence is over. It ends by the passing of time alone, so that it needs no timer.</summary>
    public bool IsHealthy(InstanceRun run) => run.RunningSince is { } since && _time.GetElapsedTime(since) >= RestartBackoff.HealthyAfter;

    public IAsyncEnumerable<InstanceTransition> WatchAsync(CancellationToken cancellationToken) => _transitions.WatchAsync(cancellationToken);

    /// <summary>Waits until something is so, from this moment on. Outside of the lock the result is given to <see cref="AwaitAsync"/>.</summary>
    public Waiter AddWaiter(Func<bool> isMet)
    {
        Waiter waiter = new(isMet);
        _waiters.Add(waiter);
        return waiter;
    }

    /// <summary>Waits until the instance is in a state, or has been in it since its last start. Not under the lock.</summary>
    public Task<Instance> WaitAsync(InstanceState state, TimeSpan? timeout, CancellationToken cancellationToken)
    {
        Waiter waiter;
        lock (Sync)
        {
            ThrowIfClosed();
            if (_passed.Has(state))
            {
                return Task.FromResult(Describe());
            }

            waiter = AddWaiter(() => State == state);
        }

        return AwaitAsync(waiter, state, timeout, cancellationToken);
    }

    /// <summary>Waits. Not under the lock.</summary>
    public async Task<Instance> AwaitAsync(Waiter waiter, InstanceState state, TimeSpan? timeout, CancellationToken cancellationToken)
    {
        try
        {
            return await waiter.Completion.Task
                .WaitAsync(timeout ?? Timeout.InfiniteTimeSpan, _time, cancellationToken)
                .ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            Instance now;
            lock (Sync)
            {
                now = Describe();
            }

            throw new OperationTimedOutException(
                now,
                $"Operation timed out: instance '{now.Name}' is in state '{now.State.ToText()}', not '{state.ToText()}'");
        }
        finally
        {
            lock (Sync)
            {
                _waiters.Remove(waiter);
            }
        }
    }

    public Instance Describe()
    {
        ResourceMetadata metadata = Retention.Metadata;
        InstanceRun? run = Run;
        PastRun? past = run is null ? Last : null;
        bool restarting = Restart is not null && !(run is not null && IsHealthy(run));
        return new Instance
        {
            Uuid = Identity.Uuid,
            Name = Identity.Name,
            CreatedAt = Identity.CreatedAt,
            State = State,
            Image = Configuration.Image.Name,
            Vcpus = Configuration.Vcpus,
            MemoryMb = Configuration.MemoryMb,
            Args = Configuration.Args,
            Env = Configuration.Env,
            Annotations = Configuration.Annotations,
            RestartPolicy = Policies.Restart,
            Origin = _origin,
            StartCount = StartCount,
            RestartCount = RestartCount,
            Restart = restarting ? new RestartStatus(Restart!.Attempt, Restart.NextAt) : null,
            StartedAt = run?.StartedAt ?? past?.StartedAt,
            StoppedAt = Last?.StoppedAt,
            Uptime = run is null ? past?.Uptime ?? default : _time.GetElapsedTime(run.StartTimestamp),
            BootTime = run is null ? past?.BootTime : run.BootTime,
            StopReason = StopReason(),
            ExitCode = past?.Outcome.ExitCode,
            StopCode = past?.Outcome.StopCode,
            Fault = past?.Outcome.Fault,
            Features = Policies.Features,
            ScaleToZero = Policies.ScaleToZero,
            Updates = Updates,
            HasSnapshot = run is null && HasSnapshot,
            Volumes = Volumes?.Invoke() ?? [],
            Roms = Roms?.Invoke() ?? [],
            Services = Policies.Services,
            Tags = metadata.Tags,
            DeleteLock = metadata.DeleteLock,
            Autokill = metadata.Autokill,
        };
    }

    private StopReason? StopReason() => (State, Run) switch
    {
        (InstanceState.Draining or InstanceState.Stopping, { } run) => run.Suspension is null
            ? StopOutcome.Compose(run.Initiator, run.Forced, exit: null).Reason
            : StopOutcome.Suspended(run.Initiator).Reason,
        (_, null) => Last?.Outcome.Reason,
        _ => null,
    };

    /// <summary>Somebody who waits.</summary>
    internal sealed class Waiter(Func<bool> isMet)
    {
        public TaskCompletionSource<Instance> Completion { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public bool IsMet() => isMet();

        public void Fail(Exception error)
        {
            Completion.TrySetException(error);
            // It may not be awaited any more, and then nobody observes the error.
            _ = Completion.Task.Exception;
        }
    }
}

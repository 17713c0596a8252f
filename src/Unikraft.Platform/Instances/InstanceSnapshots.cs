using System.Collections.Immutable;
using System.Diagnostics;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Instances;

/// <summary>
/// The snapshots of one instance: those that are taken of it for branches, checkpoints and templates, one at a time, and the one that its next start
/// continues from.
/// </summary>
/// <remarks>Guarded by the lock of the instance.</remarks>
internal sealed class InstanceSnapshots
{
    private readonly PlatformContext _platform;
    private readonly InstanceStatus _status;
    private readonly SnapshotTurns _turns = new();
    private SnapshotReference? _next;
    private SnapshotReference? _running;
    private ImmutableList<CheckpointReference> _history;

    public InstanceSnapshots(PlatformContext platform, InstanceStatus status, Blueprint blueprint)
    {
        _platform = platform;
        _status = status;
        _history = blueprint.History;
        SetNext(blueprint.Snapshot);
    }

    /// <summary>The checkpoints in the lineage of the instance, newest first.</summary>
    public ImmutableList<CheckpointReference> History
    {
        get
        {
            lock (_status.Sync)
            {
                return _history;
            }
        }
    }

    public void AddCheckpoint(CheckpointReference checkpoint)
    {
        lock (_status.Sync)
        {
            ImmutableList<CheckpointReference> before = _history;
            _history = before.Insert(0, checkpoint);
            _platform.Data?.Extended(before, _history);
            _status.Changed?.Invoke();
        }
    }

    public void RemoveCheckpoint(CheckpointReference checkpoint)
    {
        lock (_status.Sync)
        {
            _history = _history.Remove(checkpoint);
            _status.Changed?.Invoke();
        }
    }

    /// <summary>Under what the snapshot is kept that the instance continues from, or has continued from in the run under way. Under the lock.</summary>
    public Guid? KeptAs => (_next ?? _running)?.KeptAs;

    /// <summary>The same as <see cref="History"/>, under the lock.</summary>
    public ImmutableList<CheckpointReference> HistoryLocked => _history;

    /// <summary>Saves the snapshot that the next start continues from.</summary>
    public async Task KeepNextAsync(DataDirectory data, CancellationToken cancellationToken)
    {
        SnapshotReference? next;
        lock (_status.Sync)
        {
            next = ShareNext();
        }

        if (next is not null)
        {
            using (next)
            {
                await next.KeepAsync(data, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>
    /// Gives up the snapshot that starts continue from, but holds on to its file until the run is over: should the host end before, the next start continues
    /// from there. Under the lock; the result is disposed of outside.
    /// </summary>
    public SnapshotReference? BeginRun()
    {
        SnapshotReference? taken = TakeNext();
        if (taken?.KeptAs is null)
        {
            return taken;
        }

        _running = taken;
        return null;
    }

    /// <summary>The run is over. Under the lock; the result is disposed of outside.</summary>
    public SnapshotReference? EndRun()
    {
        SnapshotReference? ended = _running;
        _running = null;
        return ended;
    }

    /// <summary>A hold on the snapshot that a start continues from, if there is one. Under the lock.</summary>
    public SnapshotReference? ShareNext() => _next?.Share();

    /// <summary>Gives up the snapshot that starts continue from: later ones boot the image. Under the lock; the result is disposed of outside.</summary>
    public SnapshotReference? TakeNext()
    {
        SnapshotReference? taken = _next;
        SetNext(null);
        return taken;
    }

    /// <summary>Gives the next start a snapshot to continue from, where it had none. Under the lock.</summary>
    public void SetNext(SnapshotReference? snapshot)
    {
        _next = snapshot;
        _status.HasSnapshot = snapshot is not null;
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
        _platform.Volumes.RequireBlocks(_status.Identity.Uuid, purpose);
        CloneSource clone = await BeginInTurnAsync(purpose, onlyIn, waitForPending, cancellationToken).ConfigureAwait(false);
        if (clone.Machine is not null || purpose == ClonePurpose.Suspension)
        {
            return clone;
        }

        if (clone.Snapshot is not { } held)
        {
            // An instance that does not run has no memory to clone, but it may have volumes.
            IMachineSnapshot? volumes = await _platform.Volumes
                .CaptureStoppedAsync(clone.Identity, purpose, memory: null, cancellationToken)
                .ConfigureAwait(false);
            return clone with { Snapshot = volumes is null ? null : new SnapshotReference(volumes) };
        }

        return await ExtendAsync(clone, held, purpose, cancellationToken).ConfigureAwait(false);
    }

    // An instance that was made from a snapshot may have been given volumes and ROMs besides, and has not run since.
    private async Task<CloneSource> ExtendAsync(CloneSource clone, SnapshotReference held, ClonePurpose purpose, CancellationToken cancellationToken)
    {
        try
        {
            if (!_platform.Volumes.HasMore(clone.Identity.Uuid, held.Volumes.Count, held.Roms.Count))
            {
                return clone;
            }

            IMachineSnapshot memory = await held.OpenAsync(cancellationToken).ConfigureAwait(false);
            IMachineSnapshot? extended = await _platform.Volumes
                .CaptureStoppedAsync(clone.Identity, purpose, (held, memory), cancellationToken)
                .ConfigureAwait(false);
            return extended is null ? clone : clone with { Snapshot = new SnapshotReference(extended) };
        }
        catch
        {
            held.Dispose();
            throw;
        }
    }

    private async Task<CloneSource> BeginInTurnAsync(
        ClonePurpose purpose,
        InstanceRun? onlyIn,
        bool waitForPending,
        CancellationToken cancellationToken)
    {
        Task turn;
        lock (_status.Sync)
        {
            if (!waitForPending || _status.State != InstanceState.Running)
            {
                return BeginClone(purpose, onlyIn, hasTurn: false);
            }

            turn = _turns.TakeAsync(cancellationToken);
        }

        await turn.ConfigureAwait(false);
        lock (_status.Sync)
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
                    _turns.Pass();
                }
            }
        }
    }

    /// <summary>
    /// Takes the snapshot of a clone that was begun while the instance ran. When it becomes a template or is suspended it stands still from then on, unless this
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
            CaptureOptions options = new() { PauseBudget = pauseBudget ?? _platform.Settings.SnapshotPauseBudget };
            return new SnapshotReference(await _platform.Telemetry.TraceAsync(
                TelemetryNames.CaptureActivity,
                _status.Identity,
                () => purpose.Freezes()
                    ? FreezeAsync(source.Machine!, purpose, cancellationToken)
                    : CaptureRunningAsync(source.Machine!, options, cancellationToken)).ConfigureAwait(false));
        }
        catch (Exception error) when (error is MachineExitedException or ObjectDisposedException)
        {
            lock (_status.Sync)
            {
                _status.ThrowIfClosed();
            }

            throw purpose.WrongState(_status.Identity.Name, InstanceState.Stopped);
        }
        finally
        {
            lock (_status.Sync)
            {
                _turns.Pass();
            }
        }
    }

    // Under the lock.
    private CloneSource BeginClone(ClonePurpose purpose, InstanceRun? onlyIn, bool hasTurn)
    {
        _status.ThrowIfClosed();
        if (onlyIn is not null && onlyIn != _status.Run)
        {
            throw purpose.WrongState(_status.Identity.Name, InstanceState.Stopped);
        }

        InstanceOperation operation = purpose == ClonePurpose.Suspension ? InstanceOperation.Suspend : InstanceOperation.Clone;
        if (!InstanceLifecycle.Allows(_status.State, operation))
        {
            throw purpose.WrongState(_status.Identity.Name, _status.State);
        }

        if (_status.State != InstanceState.Running)
        {
            return new CloneSource(_status.Identity, _status.Configuration, _history, Machine: null, _next?.Share());
        }

        return hasTurn || _turns.TryTake()
            ? new CloneSource(_status.Identity, _status.Configuration, _history, _status.Run!.Machine, Snapshot: null)
            : throw purpose.SnapshotPending(_status.Identity.Name);
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

    private async Task<IMachineSnapshot> FreezeAsync(IVirtualMachine machine, ClonePurpose purpose, CancellationToken cancellationToken)
    {
        // What the guest did after the snapshot would be lost, and could be seen from outside.
        await machine.PauseAsync(cancellationToken).ConfigureAwait(false);
        IMachineSnapshot? snapshot = null;
        try
        {
            snapshot = await machine.CaptureAsync(cancellationToken).ConfigureAwait(false);
            lock (_status.Sync)
            {
                _status.ThrowIfClosed();
                return _status.State == InstanceState.Running && _status.Run?.Machine == machine
                    ? snapshot
                    : throw purpose.WrongState(_status.Identity.Name, _status.State);
            }
        }
        catch
        {
            snapshot?.Dispose();
            machine.Resume();
            throw;
        }
    }
}

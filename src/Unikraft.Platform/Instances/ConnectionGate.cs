using System.Diagnostics.CodeAnalysis;
using Unikraft.Platform.Diagnostics;

namespace Unikraft.Platform.Instances;

/// <summary>
/// Lets connections to one instance in: starts it for them when it is in standby, refuses them while it does not take any, and has it scaled to zero when there
/// have been none for a while.
/// </summary>
/// <remarks>Guarded by the lock of the instance.</remarks>
[SuppressMessage("Design", "CA1001:Types that own disposable fields should be disposable", Justification = "No timer is left when a run has ended.")]
internal sealed class ConnectionGate
{
    private readonly PlatformContext _platform;
    private readonly InstanceStatus _status;
    private readonly InstanceController _instance;
    private readonly InstanceConnections _connections = new();
    private readonly IdleTimer _idle;

    public ConnectionGate(PlatformContext platform, InstanceStatus status, InstanceController instance)
    {
        _platform = platform;
        _status = status;
        _instance = instance;
        _idle = new IdleTimer(platform.TimeProvider, run => _ = ScaleToZeroAsync(run));
    }

    /// <summary>Whether there is no connection, and nobody who waits for one. Under the lock.</summary>
    public bool IsIdle => _connections.IsIdle;

    /// <summary>The numbers of connections. Under the lock.</summary>
    public InstanceConnections Connections => _connections;

    /// <summary>Opens a connection, when the instance is running.</summary>
    /// <param name="cancellationToken">Ends the waiting.</param>
    public async Task<IInstanceConnection> ConnectAsync(CancellationToken cancellationToken)
    {
        long askedAt = _platform.TimeProvider.GetTimestamp();
        bool isQueued = false, hasWoken = false;
        try
        {
            while (true)
            {
                Task next;
                lock (_status.Sync)
                {
                    _status.ThrowIfClosed();
                    if (_status.State == InstanceState.Running)
                    {
                        return Open(hasWoken ? askedAt : null);
                    }

                    if (!isQueued)
                    {
                        isQueued = true;
                        _connections.Queued++;
                    }

                    next = Approach(ref hasWoken);
                }

                await next.WaitAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        finally
        {
            if (isQueued)
            {
                lock (_status.Sync)
                {
                    _connections.Queued--;
                    WatchIdleness();
                }
            }
        }
    }

    /// <summary>The instance starts. Under the lock.</summary>
    public void OnStarting() => _connections.Reset();

    /// <summary>The instance is running, or is not any more. Under the lock.</summary>
    /// <param name="atLeast">How long to wait in any case.</param>
    public void WatchIdleness(TimeSpan atLeast = default)
    {
        TimeSpan? cooldown = _status.Policies.ScaleToZero?.CooldownTime;
        _idle.Set(
            _status.State == InstanceState.Running && _connections.IsIdle ? _status.Run : null,
            cooldown < atLeast ? atLeast : cooldown);
    }

    /// <summary>The instance does not run any more. Under the lock.</summary>
    public void OnEnded()
    {
        _connections.CloseAll();
        _idle.Set(run: null, cooldown: null);
    }

    // Under the lock.
    private IInstanceConnection Open(long? wakeupSince)
    {
        if (wakeupSince is { } since)
        {
            TimeSpan latency = _platform.TimeProvider.GetElapsedTime(since);
            _connections.Wakeups.Record(latency);
            _platform.Telemetry.WokenUp(latency);
        }

        IInstanceConnection connection = _connections.Open(OnDisposed);
        WatchIdleness();
        return connection;
    }

    // Under the lock. What to wait for before looking again.
    private Task Approach(ref bool hasWoken)
    {
        if (_status is { State: InstanceState.Stopping, Run: { EndsInStandby: true } run })
        {
            return run.Ended.Task;
        }

        if (!InstanceLifecycle.Allows(_status.State, InstanceOperation.Connect))
        {
            throw new WrongStateException(
                $"Cannot connect to instance '{_status.Identity.Name}' in state '{_status.State.ToText()}'",
                _status.State);
        }

        if (_status.State == InstanceState.Standby)
        {
            hasWoken = true;
            return WakeAsync();
        }

        return _status.AddWaiter(() => _status.State != InstanceState.Starting).Completion.Task;
    }

    // The start goes on when the connection is given up: others may be waiting for it.
    private async Task WakeAsync()
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        using Rundown.Scope scope = _platform.Rundown.Enter();
        try
        {
            await _instance.WakeAsync().ConfigureAwait(false);
        }
        catch (Exception error)
        {
            _platform.Logger.InstanceStartFailed(error, _status.Identity.Name, _status.Identity.Uuid);
            throw;
        }
    }

    private void OnDisposed(InstanceConnections.Connection connection)
    {
        InstanceRun? drained = null;
        lock (_status.Sync)
        {
            if (!_connections.Remove(connection))
            {
                return;
            }

            WatchIdleness();
            if (_status.State == InstanceState.Draining && _connections.Active == 0)
            {
                drained = _status.Run;
            }
        }

        if (drained is not null)
        {
            _instance.EndDrain(drained);
        }
    }

    private async Task ScaleToZeroAsync(InstanceRun run)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        using Rundown.Scope? scope = _platform.Rundown.TryEnter();
        if (scope is null)
        {
            return;
        }

        try
        {
            await _instance.Suspension.ScaleToZeroAsync(run).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            _platform.Logger.ScaleToZeroFailed(error, _status.Identity.Name, _status.Identity.Uuid);
            lock (_status.Sync)
            {
                // Not at once, however short the cooldown is.
                WatchIdleness(atLeast: ScaleToZero.DefaultCooldownTime);
            }
        }
    }
}

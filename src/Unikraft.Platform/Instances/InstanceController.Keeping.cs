using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Instances;

/// <summary>What a data directory keeps of an instance.</summary>
internal sealed partial class InstanceController : IKeptResource
{
    public StateKey Key => new(StateKind.Instance, _identity.Uuid);

    /// <summary>Goes on where a platform before has left off. An instance that ran is stopped: its machine ended with the process that it was in.</summary>
    public void Restore(InstanceRecord record, DataDirectory data)
    {
        Func<Task>? delete;
        lock (_status.Sync)
        {
            delete = RestoreLocked(record, data);
        }

        // One that is not to outlive its stop has stopped.
        _ = delete?.Invoke();
    }

    // Under the lock. What is returned is to be called outside of it.
    private Func<Task>? RestoreLocked(InstanceRecord record, DataDirectory data)
    {
        _status.StartCount = record.StartCount;
        _status.RestartCount = record.RestartCount;
        _status.Transitions.Restore(record.Transitions);
        if (record is { IsStandby: true, Run: null })
        {
            _status.RestoreStandby();
        }

        _status.Last = record switch
        {
            { Run: { } run } => new PastRun(
                run.StartedAt,
                Time.GetUtcNow(),
                data.SinceServiceTime(run.StartedService),
                run.BootTime is { } boot ? TimeSpan.FromTicks(boot) : null,
                TimeSpan.Zero,
                StopOutcome.Compose(
                    run.IsStoppedByUser ? StopInitiator.User : StopInitiator.Platform,
                    forced: true,
                    new MachineExit.Killed())),
            { Last: { } last } => new PastRun(
                last.StartedAt,
                last.StoppedAt,
                TimeSpan.FromTicks(last.Uptime),
                last.BootTime is { } boot ? TimeSpan.FromTicks(boot) : null,
                TimeSpan.FromTicks(last.CpuTime),
                new StopOutcome(
                    (StopReason)last.Reason,
                    last.ExitCode,
                    last.StopCode is { } code ? new StopCode(code) : null,
                    last.Fault)),
            _ => null,
        };
        _status.Updates = [.. (record.Updates ?? []).Select(update => update.ToOperation(data))];
        Updates.Apply();
        _status.Publish();
        Func<Task>? delete = record.Run is null ? null : BeginDeleteOnStop();
        if (delete is not null)
        {
            return delete;
        }

        if (record is { Run: null, Restart: { } restart })
        {
            _restarts.Resume(restart.Attempt, restart.NextAt is { } next ? TimeSpan.FromTicks(Math.Max(0, next - data.ServiceTime.Ticks)) : TimeSpan.Zero);
        }
        else if (record is { Run: null, UnusedSince: { } since })
        {
            Retention.Restore(data.SinceServiceTime(since));
        }

        return null;
    }

    public ResourceRecord? Save(DataDirectory data)
    {
        lock (_status.Sync)
        {
            if (!_status.IsKept)
            {
                return null;
            }

            (Resources.ResourceMetadata metadata, long? unusedSince) = Retention.Save();
            InstanceRun? run = _status.Run;
            PastRun? last = _status.Last;
            bool isRestarting = _status.Restart is not null && !(run is not null && _status.IsHealthy(run));
            (IReadOnlyList<VolumeMountRecord> volumes, IReadOnlyList<RomMount> roms, IReadOnlyList<RomMount>? nextRoms) = _platform.Volumes.Save(_identity.Uuid);
            return new InstanceRecord
            {
                Name = _identity.Name,
                CreatedAt = _identity.CreatedAt,
                Order = _identity.Order,
                Configuration = _status.Configuration.ToRecord(data),
                Lineage = data.KeepLineage(Snapshots.HistoryLocked),
                Tags = metadata.Tags,
                DeleteLock = metadata.DeleteLock,
                Autokill = metadata.Autokill?.Time.Ticks,
                UnusedSince = unusedSince is { } since ? data.ToServiceTime(since) : null,
                Snapshot = Snapshots.KeptAs,
                Origin = Origin?.ToRecord(),
                RestartPolicy = _status.Policies.Restart,
                Features = _status.Policies.Features,
                ScaleToZero = _status.Policies.ScaleToZero is { } scale ? new ScaleToZeroRecord(scale.Stateful, scale.CooldownTime.Ticks) : null,
                IsStandby = _status.State == InstanceState.Standby,
                StartCount = _status.StartCount,
                RestartCount = _status.RestartCount,
                Restart = isRestarting
                    ? new RestartRecord(
                        _status.Restart!.Attempt,
                        _status.Restart.NextAt is null ? null : (data.ServiceTimeAt(_status.Restart.ScheduledAt) + _status.Restart.Delay).Ticks)
                    : null,
                Last = last is null
                    ? null
                    : new PastRunRecord(
                        last.StartedAt,
                        last.StoppedAt,
                        last.Uptime.Ticks,
                        last.BootTime?.Ticks,
                        last.CpuTime.Ticks,
                        (int)last.Outcome.Reason,
                        last.Outcome.ExitCode,
                        last.Outcome.StopCode?.Value,
                        last.Outcome.Fault),
                Run = run is null
                    ? null
                    : new RunRecord(
                        run.StartedAt,
                        data.ToServiceTime(run.StartTimestamp),
                        run.BootTime?.Ticks,
                        run.Initiator.HasFlag(StopInitiator.User)),
                Transitions = _status.Transitions.LastNumber,
                LogEnd = data.Logs.RecordEnd(_identity.Uuid),
                Volumes = volumes,
                Roms = roms,
                NextRoms = nextRoms,
                Services = _status.Policies.Services,
                Updates = _status.Updates.IsEmpty ? null : [.. _status.Updates.Select(update => UpdateRecord.Of(update, data))],
            };
        }
    }

    private void KeepChanges()
    {
        if (_platform.Data is { } data)
        {
            _status.Changed = () => data.Changed(this);
            Retention.Changed = _status.Changed;
            data.Logs.Attach(this, _identity.Uuid, Log);
        }
    }
}

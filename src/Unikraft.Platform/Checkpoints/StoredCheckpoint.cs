using System.Collections.Immutable;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Checkpoints;

/// <summary>The owner of one checkpoint.</summary>
internal sealed class StoredCheckpoint : IInstanceSource, IKeptResource, IDisposable
{
    private readonly StoredState _state;
    private readonly CancellationTokenSource _abandoned;
    private readonly TaskCompletionSource _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <param name="identity">What it is known by.</param>
    /// <param name="source">The instance it is taken from.</param>
    /// <param name="metadata">Its metadata.</param>
    /// <param name="platform">The platform.</param>
    /// <param name="remove">Takes it out of its registry; false when it is not there.</param>
    /// <param name="wasRunning">Whether the source ran, if the machine does not tell.</param>
    public StoredCheckpoint(
        ResourceIdentity identity,
        CloneSource source,
        ResourceMetadata metadata,
        PlatformContext platform,
        Func<bool> remove,
        bool? wasRunning = null)
    {
        Identity = identity;
        Reference = new CheckpointReference(identity.Uuid, identity.Name, identity.CreatedAt);
        Retention = new Retention(platform, "checkpoint", identity, metadata, remove, DeleteAsync);
        _state = new StoredState(source, wasRunning);
        if (platform.Data is { } data)
        {
            Retention.Changed = () => data.Changed(this);
        }

        _abandoned = CancellationTokenSource.CreateLinkedTokenSource(platform.Rundown.Closing);
    }

    public ResourceIdentity Identity { get; }

    public CheckpointReference Reference { get; }

    public Retention Retention { get; }

    public AutokillPolicy? InheritedAutokill => null;

    /// <summary>The checkpoints it descends from, newest first.</summary>
    public ImmutableList<CheckpointReference> Ancestors => _state.Source.History;

    /// <summary>Completes when the checkpoint is ready, and fails when it has failed or was deleted before.</summary>
    public Task Ready => _ready.Task;

    /// <summary>Cancelled when nobody wants the checkpoint any more.</summary>
    public CancellationToken Abandoned => _abandoned.Token;

    /// <summary>Completes when the snapshot is no longer being built, however that ended.</summary>
    public Task Capture { get; set; } = Task.CompletedTask;

    public Checkpoint Describe()
    {
        ResourceMetadata metadata = Retention.Metadata;
        return new Checkpoint
        {
            Uuid = Identity.Uuid,
            Name = Identity.Name,
            CreatedAt = Identity.CreatedAt,
            State = _state.IsReady ? CheckpointState.Ready : CheckpointState.Starting,
            SourceUuid = _state.Source.Identity.Uuid,
            Image = _state.Source.Configuration.Image.Name,
            Vcpus = _state.Source.Configuration.Vcpus,
            MemoryMb = _state.Source.Configuration.MemoryMb,
            Args = _state.Source.Configuration.Args,
            Env = _state.Source.Configuration.Env,
            Annotations = _state.Source.Configuration.Annotations,
            LoadCount = _state.LoadCount,
            StoredBytes = _state.StoredBytes,
            Pause = _state.Pause,
            Volumes = _state.Volumes,
            Roms = _state.Roms,
            Tags = metadata.Tags,
            DeleteLock = metadata.DeleteLock,
            Autokill = metadata.Autokill,
        };
    }

    public StateKey Key => new(StateKind.Checkpoint, Identity.Uuid);

    public ResourceRecord? Save(DataDirectory data)
    {
        if (!_state.IsPrepared || _state.IsDisposed)
        {
            return null;
        }

        (ResourceMetadata metadata, long? unusedSince) = Retention.Save();
        return new CheckpointRecord
        {
            Name = Identity.Name,
            CreatedAt = Identity.CreatedAt,
            Order = Identity.Order,
            Configuration = _state.Source.Configuration.ToRecord(data),
            Lineage = data.KeepLineage(Ancestors),
            Tags = metadata.Tags,
            DeleteLock = metadata.DeleteLock,
            Autokill = metadata.Autokill?.Time.Ticks,
            UnusedSince = unusedSince is { } since ? data.ToServiceTime(since) : data.ServiceTime.Ticks,
            Snapshot = _state.KeptAs,
            Source = new SourceRecord(_state.Source.Identity.Uuid, _state.Source.Identity.Name, _state.Source.Identity.CreatedAt),
            LoadCount = _state.LoadCount,
            StoredBytes = _state.StoredBytes,
            Pause = _state.Pause?.Ticks,
        };
    }

    /// <summary>Goes on where a platform before has left off.</summary>
    public void Recover(CheckpointRecord record, DataDirectory data)
    {
        _state.Recover(
            data.RecoverSnapshot(record.Snapshot),
            record.StoredBytes,
            record.Pause is { } ticks ? TimeSpan.FromTicks(ticks) : null,
            record.LoadCount);
        Retention.Restore(record.UnusedSince is { } since ? data.SinceServiceTime(since) : TimeSpan.Zero);
        _ready.TrySetResult();
    }

    /// <summary>The snapshot is built, or none is needed because the source was stopped. It is kept from now on, but cannot be loaded.</summary>
    public void Prepare(SnapshotReference? snapshot) => _state.Prepare(snapshot);

    /// <summary>It is kept, and can be loaded.</summary>
    public void Complete()
    {
        _state.Complete();
        Retention.SetUnused(true);
        _ready.TrySetResult();
    }

    public void Fail(Exception error)
    {
        Retention.Dispose();
        _ready.TrySetException(error);
        // Nobody may be waiting, and then nobody observes the error.
        _ = _ready.Task.Exception;
    }

    /// <summary>It has failed: what it holds is of no use.</summary>
    public void GiveUp() => _state.Dispose();

    public Blueprint Load()
    {
        InstanceOrigin origin = new(InstanceOriginKind.Checkpoint, Identity.Uuid, Identity.Name);
        return _state.TryLoad(origin, Ancestors.Insert(0, Reference), out Blueprint? blueprint)
            ? blueprint
            : throw new PlatformException(
                PlatformErrorCode.WrongState,
                $"Failed to create instance from checkpoint: checkpoint '{Identity.Name}' "
                + (_state.IsDisposed ? "was deleted" : $"is in state '{CheckpointState.Starting.ToText()}', wait until it is ready"));
    }

    public void CountLoads(int count) => _state.CountLoads(count);

    /// <summary>Gives up a capture that is under way, waits for its end, and lets go of the snapshot.</summary>
    public async Task DeleteAsync()
    {
        await _abandoned.CancelAsync().ConfigureAwait(false);
        await Capture.ConfigureAwait(false);
        Dispose();
    }

    public void Dispose()
    {
        Retention.Dispose();
        _state.Dispose();
        _abandoned.Dispose();
    }
}

using System.Collections.Immutable;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Checkpoints;

/// <summary>The owner of one checkpoint.</summary>
internal sealed class StoredCheckpoint : IInstanceSource, IDisposable
{
    private readonly StoredState _state;
    private readonly CancellationTokenSource _abandoned;
    private readonly TaskCompletionSource _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <param name="identity">What it is known by.</param>
    /// <param name="source">The instance it is taken from.</param>
    /// <param name="metadata">Its metadata.</param>
    /// <param name="platform">The platform.</param>
    /// <param name="remove">Takes it out of its registry; false when it is not there.</param>
    public StoredCheckpoint(
        ResourceIdentity identity,
        CloneSource source,
        ResourceMetadata metadata,
        PlatformContext platform,
        Func<bool> remove)
    {
        Identity = identity;
        Reference = new CheckpointReference(identity.Uuid, identity.Name, identity.CreatedAt);
        Retention = new Retention(platform, "checkpoint", identity, metadata, remove, DeleteAsync);
        _state = new StoredState(source);
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
            LoadCount = _state.LoadCount,
            StoredBytes = _state.StoredBytes,
            Pause = _state.Pause,
            Volumes = _state.Volumes,
            Tags = metadata.Tags,
            DeleteLock = metadata.DeleteLock,
            Autokill = metadata.Autokill,
        };
    }

    /// <summary>The snapshot is built, or none is needed because the source was stopped.</summary>
    public void Complete(SnapshotReference? snapshot)
    {
        _state.Complete(snapshot);
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

    public Blueprint Load()
    {
        InstanceOrigin origin = new(InstanceOriginKind.Checkpoint, Identity.Uuid, Identity.Name);
        return _state.TryLoad(origin, Ancestors.Insert(0, Reference), out Blueprint? blueprint)
            ? blueprint
            : throw new PlatformException(
                PlatformErrorCode.WrongState,
                $"Failed to create instance from checkpoint: checkpoint '{Identity.Name}' "
                + (_state.IsDisposed ? "was deleted" : "is in state 'starting', wait until it is ready"));
    }

    public void CountLoad() => _state.CountLoad();

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

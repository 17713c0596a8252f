using System.Collections.Immutable;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Checkpoints;

/// <summary>The owner of one checkpoint.</summary>
internal sealed class StoredCheckpoint(ResourceIdentity identity, CloneSource source, CancellationToken closing) : IInstanceSource, IDisposable
{
    private readonly StoredState _state = new(source);
    private readonly CancellationTokenSource _abandoned = CancellationTokenSource.CreateLinkedTokenSource(closing);
    private readonly TaskCompletionSource<Checkpoint> _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public ResourceIdentity Identity => identity;

    public CheckpointReference Reference { get; } = new(identity.Uuid, identity.Name, identity.CreatedAt);

    /// <summary>The checkpoints it descends from, newest first.</summary>
    public ImmutableList<CheckpointReference> Ancestors => _state.Source.History;

    /// <summary>Completes when the checkpoint is ready, and fails when it has failed or was deleted before.</summary>
    public Task<Checkpoint> Ready => _ready.Task;

    /// <summary>Cancelled when nobody wants the checkpoint any more.</summary>
    public CancellationToken Abandoned => _abandoned.Token;

    /// <summary>Completes when the snapshot is no longer being built, however that ended.</summary>
    public Task Capture { get; set; } = Task.CompletedTask;

    public Checkpoint Describe() => new()
    {
        Uuid = identity.Uuid,
        Name = identity.Name,
        CreatedAt = identity.CreatedAt,
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
    };

    /// <summary>The snapshot is built, or none is needed because the source was stopped.</summary>
    public void Complete(SnapshotReference? snapshot)
    {
        _state.Complete(snapshot);
        _ready.TrySetResult(Describe());
    }

    public void Fail(Exception error)
    {
        _ready.TrySetException(error);
        // Nobody may be waiting, and then nobody observes the error.
        _ = _ready.Task.Exception;
    }

    public Blueprint Load()
    {
        InstanceOrigin origin = new(InstanceOriginKind.Checkpoint, identity.Uuid, identity.Name);
        return _state.TryLoad(origin, Ancestors.Insert(0, Reference), out Blueprint? blueprint)
            ? blueprint
            : throw new PlatformException(
                PlatformErrorCode.WrongState,
                $"Failed to create instance from checkpoint: checkpoint '{identity.Name}' "
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
        _state.Dispose();
        _abandoned.Dispose();
    }
}

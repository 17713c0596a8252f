using System.Collections.Immutable;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Checkpoints;

/// <summary>The owner of one checkpoint.</summary>
/// <remarks>The lock guards the fields below it. Nothing that may block or run foreign code is called under it.</remarks>
internal sealed class StoredCheckpoint(ResourceIdentity identity, CloneSource source, CancellationToken closing) : IDisposable
{
    private readonly CancellationTokenSource _abandoned = CancellationTokenSource.CreateLinkedTokenSource(closing);
    private readonly TaskCompletionSource<Checkpoint> _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _lock = new();
    private SnapshotReference? _snapshot;
    private CheckpointState _state = CheckpointState.Starting;
    private long _storedBytes;
    private TimeSpan? _pause;
    private int _loadCount;
    private bool _deleted;

    public ResourceIdentity Identity => identity;

    public CheckpointReference Reference { get; } = new(identity.Uuid, identity.Name, identity.CreatedAt);

    /// <summary>The checkpoints it descends from, newest first.</summary>
    public ImmutableList<CheckpointReference> Ancestors => source.History;

    /// <summary>Completes when the checkpoint is ready, and fails when it has failed or was deleted before.</summary>
    public Task<Checkpoint> Ready => _ready.Task;

    /// <summary>Cancelled when nobody wants the checkpoint any more.</summary>
    public CancellationToken Abandoned => _abandoned.Token;

    /// <summary>Completes when the snapshot is no longer being built, however that ended.</summary>
    public Task Capture { get; set; } = Task.CompletedTask;

    public Checkpoint Describe()
    {
        lock (_lock)
        {
            return new Checkpoint
            {
                Uuid = identity.Uuid,
                Name = identity.Name,
                CreatedAt = identity.CreatedAt,
                State = _state,
                SourceUuid = source.Identity.Uuid,
                Image = source.Configuration.Image.Name,
                Vcpus = source.Configuration.Vcpus,
                MemoryMb = source.Configuration.MemoryMb,
                Args = source.Configuration.Args,
                Env = source.Configuration.Env,
                LoadCount = _loadCount,
                StoredBytes = _storedBytes,
                Pause = _pause,
            };
        }
    }

    /// <summary>The source was stopped: the checkpoint is of the snapshot it held, or of its image.</summary>
    public void CompleteStopped(SnapshotReference? snapshot)
    {
        lock (_lock)
        {
            _snapshot = snapshot;
            _state = CheckpointState.Ready;
        }

        _ready.TrySetResult(Describe());
    }

    public void CompleteCaptured(SnapshotReference snapshot)
    {
        lock (_lock)
        {
            _snapshot = snapshot;
            _storedBytes = snapshot.Snapshot.StoredBytes;
            _pause = snapshot.Snapshot.Pause;
            _state = CheckpointState.Ready;
        }

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
        lock (_lock)
        {
            if (_deleted || _state != CheckpointState.Ready)
            {
                throw new PlatformException(
                    PlatformErrorCode.WrongState,
                    $"Failed to create instance from checkpoint: checkpoint '{identity.Name}' "
                    + (_deleted ? "was deleted" : "is in state 'starting', wait until it is ready"));
            }

            InstanceOrigin origin = new(InstanceOriginKind.Checkpoint, identity.Uuid, identity.Name);
            return new Blueprint(source.Configuration, _snapshot?.Share(), origin, source.History.Insert(0, Reference));
        }
    }

    public void CountLoad()
    {
        lock (_lock)
        {
            _loadCount++;
        }
    }

    /// <summary>Gives up a capture that is under way, waits for its end, and lets go of the snapshot.</summary>
    public async Task DeleteAsync()
    {
        await _abandoned.CancelAsync().ConfigureAwait(false);
        await Capture.ConfigureAwait(false);
        Dispose();
    }

    public void Dispose()
    {
        SnapshotReference? snapshot;
        lock (_lock)
        {
            _deleted = true;
            (snapshot, _snapshot) = (_snapshot, null);
        }

        snapshot?.Dispose();
        _abandoned.Dispose();
    }
}

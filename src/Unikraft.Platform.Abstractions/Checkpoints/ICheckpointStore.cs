namespace Unikraft.Platform;

/// <summary>Takes and keeps checkpoints: named restore points of instances, which can be loaded any number of times.</summary>
/// <remarks>
/// Load one with <see cref="IInstanceManager.CreateAsync"/> and <see cref="CreateInstanceRequest.Checkpoint"/>. Safe for concurrent use. Every
/// method throws <see cref="ResourceNotFoundException"/> for an unknown checkpoint and <see cref="ObjectDisposedException"/> after
/// the platform was disposed of.
/// </remarks>
public interface ICheckpointStore
{
    /// <summary>Takes a checkpoint. It is visible at once, and ready when its snapshot is built.</summary>
    /// <param name="request">What to take, and from which instance.</param>
    /// <param name="cancellationToken">Cancels the snapshot; nothing of the checkpoint remains then, and the source goes on.</param>
    /// <returns>The checkpoint: starting, or ready after a wait.</returns>
    /// <exception cref="InvalidRequestException">The name, a tag, a time or the policy is out of range.</exception>
    /// <exception cref="NameConflictException">The name is taken.</exception>
    /// <exception cref="ResourceNotFoundException">There is no such instance.</exception>
    /// <exception cref="WrongStateException">The instance is in a state that checkpointing does not support.</exception>
    /// <exception cref="QuotaExceededException">No more checkpoints may exist.</exception>
    /// <exception cref="PlatformException">
    /// <see cref="PlatformErrorCode.InsufficientLicense"/>: the platform has a licence that does not include checkpointing.
    /// <see cref="PlatformErrorCode.SnapshotPending"/>: the source has a snapshot in progress. Retry once it completes.
    /// <see cref="PlatformErrorCode.TimedOut"/>: it is not ready within <see cref="CreateCheckpointRequest.WaitTimeout"/>. It goes on.
    /// </exception>
    Task<Checkpoint> CreateAsync(CreateCheckpointRequest request, CancellationToken cancellationToken = default);

    /// <summary>Waits until a checkpoint is ready to be loaded.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="timeout">How long to wait: 0 to 49 days. Default: for ever.</param>
    /// <param name="cancellationToken">Ends the waiting.</param>
    /// <returns>The checkpoint, ready.</returns>
    /// <exception cref="InvalidRequestException">The time is out of range.</exception>
    /// <exception cref="PlatformException">
    /// <see cref="PlatformErrorCode.TimedOut"/>: not ready in time. Any other code: the snapshot failed, and the checkpoint is gone.
    /// </exception>
    Task<Checkpoint> WaitAsync(NameOrUuid checkpoint, TimeSpan? timeout = null, CancellationToken cancellationToken = default);

    /// <summary>Looks a checkpoint up.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    Checkpoint Get(NameOrUuid checkpoint);

    /// <summary>Lists all checkpoints, oldest first.</summary>
    IReadOnlyList<Checkpoint> List();

    /// <summary>The checkpoints that a checkpoint descends from, newest first. Deleted ones stay in the history.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    IReadOnlyList<CheckpointReference> GetHistory(NameOrUuid checkpoint);

    /// <summary>Deletes a checkpoint. Instances loaded from it, and checkpoints taken from those, go on.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="cancellationToken">Cancels the deletion as long as it has not begun.</param>
    /// <exception cref="DeletionProtectedException">It has a delete lock.</exception>
    Task DeleteAsync(NameOrUuid checkpoint, CancellationToken cancellationToken = default);

    /// <summary>Changes the tags, the delete lock and the autokill policy of a checkpoint: all that is asked for, or nothing.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="operations">What to change, in order.</param>
    /// <param name="cancellationToken">Cancels the patch as long as it has not begun.</param>
    /// <returns>The checkpoint as it is then.</returns>
    /// <exception cref="InvalidRequestException">An operation is not allowed. Nothing was changed.</exception>
    Task<Checkpoint> PatchAsync(NameOrUuid checkpoint, IReadOnlyList<PatchOperation> operations, CancellationToken cancellationToken = default);
}

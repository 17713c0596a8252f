namespace Unikraft.Platform;

/// <summary>Creates, runs, branches, stops and deletes instances.</summary>
/// <remarks>
/// Safe for concurrent use. A cancelled token ends the caller's waiting and undoes what can still be undone; it never leaves an instance
/// half made. Every method throws <see cref="ResourceNotFoundException"/> for an unknown instance and
/// <see cref="ObjectDisposedException"/> after the platform was disposed of.
/// </remarks>
public interface IInstanceManager
{
    /// <summary>Creates an instance from an image, as a branch of another instance, or from a checkpoint or a template.</summary>
    /// <param name="request">What to create.</param>
    /// <param name="cancellationToken">Cancels the creation; nothing of the instance remains then.</param>
    /// <returns>The instance, as it was when the call was done.</returns>
    /// <exception cref="InvalidRequestException">The request contradicts itself or is out of range.</exception>
    /// <exception cref="NameConflictException">The name is taken.</exception>
    /// <exception cref="QuotaExceededException">No more instances may exist, or run.</exception>
    /// <exception cref="ImageException">The image cannot be used.</exception>
    /// <exception cref="WrongStateException">
    /// The source is in a state that branching does not support. Or the instance was stopped while it was created, and is gone. Or, with
    /// <see cref="CreateInstanceRequest.WaitTimeout"/>, it stopped before it was running; then it stays.
    /// </exception>
    /// <exception cref="PlatformException">
    /// <see cref="PlatformErrorCode.SnapshotPending"/>: the source has a snapshot in progress. Retry once it completes.
    /// <see cref="PlatformErrorCode.InsufficientLicense"/>: the platform has a licence that does not include branching.
    /// </exception>
    /// <exception cref="OperationTimedOutException">
    /// The instance was created, but is not running within <see cref="CreateInstanceRequest.WaitTimeout"/>. It goes on.
    /// </exception>
    /// <exception cref="HypervisorException">The backend could not make the machine.</exception>
    Task<Instance> CreateAsync(CreateInstanceRequest request, CancellationToken cancellationToken = default);

    /// <summary>
    /// Creates an instance and replicas of it: all of them, or none. They share the image, the size, the arguments and everything else but their names and UUIDs;
    /// a replica is called after the first instance, with five random characters behind it.
    /// </summary>
    /// <param name="request">What to create. The name is that of the first instance.</param>
    /// <param name="replicas">How many instances there are to be besides the first one: 0 to 253.</param>
    /// <param name="cancellationToken">Cancels the creation; nothing of any instance remains then.</param>
    /// <returns>The instances, the first one first.</returns>
    /// <inheritdoc cref="CreateAsync" path="/exception"/>
    Task<IReadOnlyList<Instance>> CreateReplicasAsync(
        CreateInstanceRequest request,
        int replicas,
        CancellationToken cancellationToken = default);

    /// <summary>Starts an instance that is stopped or in standby: from its snapshot if it has one, else from its image.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="cancellationToken">Cancels the start; the instance is stopped then.</param>
    /// <returns>The instance, starting or running.</returns>
    /// <exception cref="WrongStateException">The instance is neither stopped nor in standby, or it was stopped while it was starting.</exception>
    /// <exception cref="QuotaExceededException">No more instances may run.</exception>
    /// <exception cref="ImageException">The image cannot be used.</exception>
    /// <exception cref="HypervisorException">The backend could not make the machine. The instance is as it was.</exception>
    Task<Instance> StartAsync(NameOrUuid instance, CancellationToken cancellationToken = default);

    /// <summary>Stops an instance and waits until it is stopped. Has no effect on a stopped instance but to end its restart sequence.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="request">How to stop it. Default: ask the guest, and let its kernel kill the app after the platform's grace period.</param>
    /// <param name="cancellationToken">Ends the waiting; the stop itself goes on.</param>
    /// <returns>The stopped instance.</returns>
    /// <exception cref="InvalidRequestException">A forced stop with a grace period or with a drain timeout, or a time out of range.</exception>
    Task<Instance> StopAsync(NameOrUuid instance, StopRequest? request = null, CancellationToken cancellationToken = default);

    /// <summary>
    /// Suspends a running instance: its memory goes to a snapshot, its machine to the host, and its next start continues where it was. It is in
    /// <see cref="InstanceState.Standby"/> then if it scales to zero, else <see cref="InstanceState.Stopped"/>. Without effect in standby.
    /// </summary>
    /// <param name="instance">The instance.</param>
    /// <param name="cancellationToken">Cancels the suspension as long as it is not done; the instance then goes on running.</param>
    /// <returns>The suspended instance.</returns>
    /// <exception cref="InvalidRequestException">The instance has the feature <see cref="InstanceFeatures.DeleteOnStop"/>.</exception>
    /// <exception cref="WrongStateException">The instance does not run, or it stopped meanwhile.</exception>
    /// <exception cref="PlatformException">
    /// <see cref="PlatformErrorCode.SnapshotPending"/>: the instance has a snapshot in progress. Retry once it completes.
    /// </exception>
    /// <exception cref="HypervisorException">The snapshot failed. The instance goes on.</exception>
    Task<Instance> SuspendAsync(NameOrUuid instance, CancellationToken cancellationToken = default);

    /// <summary>
    /// Counts a connection to an instance, for whoever carries connections to it. One that comes while the instance is in standby starts it; one that comes
    /// while it is starting waits.
    /// </summary>
    /// <param name="instance">The instance.</param>
    /// <param name="cancellationToken">Ends the waiting; a start that was begun goes on.</param>
    /// <returns>The connection, when the instance is running. It counts until it is disposed of or the instance does not run any more.</returns>
    /// <exception cref="WrongStateException">The instance is stopped, stopping or draining, or its start failed.</exception>
    /// <exception cref="QuotaExceededException">No more instances may run.</exception>
    Task<IInstanceConnection> ConnectAsync(NameOrUuid instance, CancellationToken cancellationToken = default);

    /// <summary>Waits until an instance is in a state, or has been in it since its last start.</summary>
    /// <remarks>
    /// A state that the instance has passed ends the wait at once: a guest that has run and stopped by the time of this call did reach
    /// <see cref="InstanceState.Running"/>. What counts is what it has been in since its last start, be it by a call, by a connection or by the restart policy;
    /// since its creation if it was never started; and since the platform has begun if it was kept in a data directory. <see cref="StartAsync"/> forgets what
    /// was before: to start and then to wait never sees the run before. To hear of a start that is still to come, watch the instance.
    /// </remarks>
    /// <param name="instance">The instance.</param>
    /// <param name="state">The state.</param>
    /// <param name="timeout">How long to wait: 0 to 49 days; with 0 it is only looked. Default: for ever.</param>
    /// <param name="cancellationToken">Ends the waiting.</param>
    /// <returns>The instance as it was when it reached the state; as it is now, in whichever state, when it reached it before this call.</returns>
    /// <exception cref="InvalidRequestException">The state is none, or the time is out of range.</exception>
    /// <exception cref="OperationTimedOutException">The state was not reached in time.</exception>
    /// <exception cref="ResourceNotFoundException">There is no such instance, or it was deleted meanwhile.</exception>
    Task<Instance> WaitAsync(
        NameOrUuid instance,
        InstanceState state,
        TimeSpan? timeout = null,
        CancellationToken cancellationToken = default);

    /// <summary>Watches an instance: every change of its state from the moment of this call on, in order, none left out.</summary>
    /// <remarks>
    /// The stream ends when the instance is gone, after a last transition that says so; it can be read several times, always from the same moment. A reader may
    /// be as slow as it likes, and misses nothing: what it has not read is kept for it, some 200 bytes for each transition, until it ends or is forgotten. So is
    /// everything since this call for as long as the stream itself is held, read or not: hold on to it only in order to read it again. Reading costs the
    /// instance nothing.
    /// </remarks>
    /// <param name="instance">The instance.</param>
    /// <param name="cancellationToken">Ends the reading with <see cref="OperationCanceledException"/>.</param>
    IAsyncEnumerable<InstanceTransition> WatchAsync(NameOrUuid instance, CancellationToken cancellationToken = default);

    /// <summary>Watches all instances, those to come included: <see cref="WatchAsync"/> for all of them in one stream.</summary>
    /// <remarks>
    /// Transitions of one instance are in their order. The stream ends when the platform was disposed of.
    /// </remarks>
    /// <param name="cancellationToken">Ends the reading with <see cref="OperationCanceledException"/>.</param>
    IAsyncEnumerable<InstanceTransition> WatchAllAsync(CancellationToken cancellationToken = default);

    /// <summary>Deletes an instance. A running one is force-stopped first. Checkpoints, branches and forks made from it stay.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="cancellationToken">Cancels the deletion as long as it has not begun.</param>
    /// <returns>The instance as it was before it was deleted.</returns>
    /// <exception cref="DeletionProtectedException">It has a delete lock.</exception>
    Task<Instance> DeleteAsync(NameOrUuid instance, CancellationToken cancellationToken = default);

    /// <summary>
    /// Changes properties of an instance: all that is asked for, or nothing. What it boots with changes when it is stopped; until then the change is one of
    /// <see cref="Instance.Updates"/>.
    /// </summary>
    /// <param name="instance">The instance.</param>
    /// <param name="operations">What to change, in order.</param>
    /// <param name="cancellationToken">Cancels the patch as long as it has not begun.</param>
    /// <returns>The instance as it is then.</returns>
    /// <exception cref="InvalidRequestException">An operation is not allowed. Nothing was changed.</exception>
    Task<Instance> PatchAsync(NameOrUuid instance, IReadOnlyList<PatchOperation> operations, CancellationToken cancellationToken = default);

    /// <summary>Looks an instance up.</summary>
    /// <param name="instance">The instance.</param>
    Instance Get(NameOrUuid instance);

    /// <summary>Lists all instances, oldest first.</summary>
    IReadOnlyList<Instance> List();

    /// <summary>Measures instances: <see cref="InstanceMetrics"/> of each, in the order in which they are asked for.</summary>
    /// <param name="instances">The instances. None: all of them, oldest first.</param>
    IReadOnlyList<InstanceMetrics> GetMetrics(params IReadOnlyList<NameOrUuid> instances);

    /// <summary>
    /// The checkpoints in the lineage of an instance, newest first: those taken from it and, if it was loaded from a checkpoint, that
    /// checkpoint and its own lineage.
    /// </summary>
    /// <param name="instance">The instance.</param>
    IReadOnlyList<CheckpointReference> GetHistory(NameOrUuid instance);

    /// <summary>Reads what the instance has written to its console: a guest's <c>stdout</c> and <c>stderr</c>, in one order. The log survives stop and start.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="range">Which part. Default: everything that is kept.</param>
    /// <exception cref="InvalidRequestException">The limit is negative.</exception>
    LogOutput ReadLog(NameOrUuid instance, LogRange? range = null);

    /// <summary>Reads the logs of several instances, in the order in which they are asked for.</summary>
    /// <param name="requests">Which parts of which logs.</param>
    /// <returns>One output for each request.</returns>
    /// <exception cref="InvalidRequestException">A limit is negative. Nothing is read.</exception>
    IReadOnlyList<InstanceLogOutput> ReadLogs(params IReadOnlyList<InstanceLogRequest> requests);

    /// <summary>Attaches to the console of an instance, as often as wanted and also while it is stopped.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="options">Where the output begins. Default: with what is written from now on.</param>
    /// <returns>The console; disposing of it detaches.</returns>
    IInstanceConsole AttachConsole(NameOrUuid instance, ConsoleOptions? options = null);
}

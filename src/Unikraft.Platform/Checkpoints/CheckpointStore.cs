using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Checkpoints;

internal sealed class CheckpointStore(
    PlatformContext platform,
    ResourceRegistry<InstanceController> instances,
    ResourceRegistry<StoredCheckpoint> checkpoints) : ICheckpointStore
{
    public async Task<Checkpoint> CreateAsync(CreateCheckpointRequest request, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        Durations.RequireTimeout(request.WaitTimeout);
        Durations.RequirePauseBudget(request.Snapshot?.PauseBudget);
        ResourceMetadata metadata = ResourceMetadata.Of(request.Tags, request.DeleteLock, request.Autokill);

        LicenseCheck.RequireCheckpointing(platform);
        InstanceController source = instances.Find(request.From);
        await RequireSpaceAsync(cancellationToken).ConfigureAwait(false);
        ResourceIdentity identity = checkpoints.Reserve(request.Name, source.Identity.Name);
        Span? creating = null;
        CloneSource clone;
        try
        {
            creating = platform.Telemetry.Begin(TelemetryNames.CheckpointActivity, identity);
            clone = await platform.CancelOnCloseAsync(
                token => source.Snapshots.BeginCloneAsync(ClonePurpose.Checkpoint, onlyIn: null, request.Snapshot?.WaitForPending ?? false, token),
                cancellationToken).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            checkpoints.Remove(identity);
            creating?.Fail(error);
            creating?.Dispose();
            throw;
        }

        StoredCheckpoint checkpoint = new(identity, clone, metadata, platform, () => Remove(identity));
        checkpoints.Add(identity, checkpoint);
        if (clone.Machine is null)
        {
            try
            {
                await FinishAsync(checkpoint, source, clone.Snapshot, creating, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception error)
            {
                Remove(identity);
                creating?.Fail(error);
                creating?.Dispose();
                Exception failure = ToFailure(error, identity);
                checkpoint.Fail(failure);
                checkpoint.Dispose();
                throw error is OperationCanceledException && cancellationToken.IsCancellationRequested ? error : failure;
            }

            return checkpoint.Describe();
        }

        checkpoint.Capture = CaptureAsync(checkpoint, source, clone, request.Snapshot?.PauseBudget, creating);
        if (Durations.ToWait(request.WaitTimeout) is not { } timeout)
        {
            return checkpoint.Describe();
        }

        try
        {
            return await AwaitReadyAsync(checkpoint, timeout, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            // When it was deleted or has expired at the same time, that frees it.
            if (Remove(identity))
            {
                await checkpoint.DeleteAsync().ConfigureAwait(false);
            }

            source.Snapshots.RemoveCheckpoint(checkpoint.Reference);
            await platform.TryCommitAsync().ConfigureAwait(false);
            throw;
        }
    }

    public async Task<Checkpoint> WaitAsync(NameOrUuid checkpoint, TimeSpan? timeout = null, CancellationToken cancellationToken = default)
    {
        StoredCheckpoint found = Find(checkpoint);
        Durations.RequireTimeout(timeout);
        cancellationToken.ThrowIfCancellationRequested();
        return await AwaitReadyAsync(found, timeout ?? Timeout.InfiniteTimeSpan, cancellationToken).ConfigureAwait(false);
    }

    public Checkpoint Get(NameOrUuid checkpoint) => Find(checkpoint).Describe();

    public IReadOnlyList<Checkpoint> List()
    {
        platform.Rundown.ThrowIfClosed();
        return [.. checkpoints.List().Select(checkpoint => checkpoint.Describe())];
    }

    public IReadOnlyList<CheckpointReference> GetHistory(NameOrUuid checkpoint) => Find(checkpoint).Ancestors;

    public async Task DeleteAsync(NameOrUuid checkpoint, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        StoredCheckpoint found = checkpoints.Find(checkpoint);
        if (!await found.Retention.TryDeleteAsync().ConfigureAwait(false))
        {
            throw checkpoints.NotFound(checkpoint);
        }

        await platform.CommitAsync().ConfigureAwait(false);
        platform.Logger.CheckpointDeleted(found.Identity.Name, found.Identity.Uuid);
    }

    public async Task<Checkpoint> PatchAsync(
        NameOrUuid checkpoint,
        IReadOnlyList<PatchOperation> operations,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(operations);
        cancellationToken.ThrowIfCancellationRequested();
        StoredCheckpoint found = Find(checkpoint);
        if (!found.Retention.TryPatch(operations))
        {
            throw checkpoints.NotFound(checkpoint);
        }

        await platform.CommitAsync().ConfigureAwait(false);
        return found.Describe();
    }

    /// <summary>Lets go of all snapshots. No operation runs any more.</summary>
    public async Task CloseAllAsync()
    {
        foreach (StoredCheckpoint checkpoint in checkpoints.List())
        {
            checkpoints.Remove(checkpoint.Identity);
            await checkpoint.DeleteAsync().ConfigureAwait(false);
        }
    }

    private async Task CaptureAsync(
        StoredCheckpoint checkpoint,
        InstanceController source,
        CloneSource clone,
        TimeSpan? pauseBudget,
        Span? creating)
    {
        // The caller is told at once that the checkpoint is starting; the scope keeps disposal from overtaking the capture.
        using Rundown.Scope? scope = platform.Rundown.TryEnter();
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        ResourceIdentity identity = checkpoint.Identity;
        try
        {
            SnapshotReference snapshot = await source.Snapshots
                .CaptureAsync(clone, ClonePurpose.Checkpoint, pauseBudget, checkpoint.Abandoned)
                .ConfigureAwait(false);
            await FinishAsync(checkpoint, source, snapshot, creating, checkpoint.Abandoned).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            Remove(identity);
            creating?.Fail(error);
            creating?.Dispose();
            checkpoint.Fail(ToFailure(error, identity));
            checkpoint.GiveUp();
            if (error is not OperationCanceledException)
            {
                platform.Logger.CheckpointFailed(error, identity.Name, identity.Uuid, clone.Identity.Name);
            }
        }
    }

    /// <summary>Adds a checkpoint that was kept.</summary>
    public void Recover(Guid uuid, CheckpointRecord record, DataDirectory data)
    {
        ResourceIdentity identity = record.ToIdentity(uuid);
        CloneSource source = new(
            new ResourceIdentity(record.Source.Uuid, record.Source.Name, record.Source.CreatedAt, Order: 0),
            record.Configuration.ToConfiguration(data),
            data.ReadLineage(record.Lineage),
            Machine: null,
            Snapshot: null);
        StoredCheckpoint checkpoint = new(identity, source, record.ToMetadata(), platform, () => Remove(identity), wasRunning: record.Pause is not null);
        checkpoints.Recover(identity, checkpoint);
        checkpoint.Recover(record, data);
    }

    /// <summary>Adds a checkpoint from an archive.</summary>
    /// <param name="uuid">Its UUID.</param>
    /// <param name="record">Its record.</param>
    /// <param name="history">The checkpoints that it descends from, newest first.</param>
    /// <param name="import">Takes in its files, and holds them until the result is disposed of.</param>
    /// <param name="data">Where it is kept.</param>
    public async Task<Checkpoint> ImportAsync(
        Guid uuid,
        CheckpointRecord record,
        IReadOnlyList<CheckpointReference> history,
        Func<Task<IDisposable?>> import,
        DataDirectory data)
    {
        ResourceIdentity identity = checkpoints.ReserveImported(uuid, record.Name, record.CreatedAt);
        StoredCheckpoint? checkpoint = null;
        try
        {
            using IDisposable? held = await import().ConfigureAwait(false);
            CloneSource source = new(
                new ResourceIdentity(record.Source.Uuid, record.Source.Name, record.Source.CreatedAt, Order: 0),
                record.Configuration.ToConfiguration(data),
                [.. history],
                Machine: null,
                Snapshot: null);
            checkpoint = new StoredCheckpoint(identity, source, record.ToMetadata(), platform, () => Remove(identity), wasRunning: record.Pause is not null);
            checkpoint.Recover(record with { UnusedSince = null }, data);
            data.Returned(checkpoint.Key);
            data.Changed(checkpoint);
            await data.CommitAsync().ConfigureAwait(false);
            checkpoints.Add(identity, checkpoint);
            return checkpoint.Describe();
        }
        catch
        {
            checkpoints.Remove(identity);
            if (checkpoint is not null)
            {
                data.Removed(checkpoint.Key);
                checkpoint.Dispose();
            }

            throw;
        }
    }

    // Before the source is bothered.
    private async Task RequireSpaceAsync(CancellationToken cancellationToken)
    {
        try
        {
            await (platform.Data?.RequireSpaceAsync(cancellationToken) ?? Task.CompletedTask).ConfigureAwait(false);
        }
        catch (StorageException error)
        {
            throw new StorageException(error.Path, $"Failed to allocate checkpoint: {error.Message}", error.IsFull);
        }
    }

    /// <summary>Makes a checkpoint of a snapshot that was taken: kept first, so that nobody sees one that a crash would take away.</summary>
    private async Task FinishAsync(
        StoredCheckpoint checkpoint,
        InstanceController source,
        SnapshotReference? snapshot,
        Span? creating,
        CancellationToken cancellationToken)
    {
        if (platform.Data is not { } data)
        {
            checkpoint.Prepare(snapshot);
            source.Snapshots.AddCheckpoint(checkpoint.Reference);
            Announce(checkpoint, creating);
            return;
        }

        try
        {
            if (snapshot is not null)
            {
                await snapshot.KeepAsync(data, cancellationToken).ConfigureAwait(false);
            }

            cancellationToken.ThrowIfCancellationRequested();
        }
        catch
        {
            snapshot?.Dispose();
            throw;
        }

        try
        {
            await data.CommitAsync(() =>
            {
                checkpoint.Prepare(snapshot);
                source.Snapshots.AddCheckpoint(checkpoint.Reference);
                data.Changed(checkpoint);
            }).ConfigureAwait(false);
        }
        catch
        {
            source.Snapshots.RemoveCheckpoint(checkpoint.Reference);
            throw;
        }

        Announce(checkpoint, creating);
    }

    private bool Remove(ResourceIdentity identity)
    {
        // First: what somebody has seen to be gone is gone from the disk with the next change that is told of.
        if (checkpoints.TryFind(identity.Uuid, out _))
        {
            platform.Data?.Removed(new StateKey(StateKind.Checkpoint, identity.Uuid));
        }

        return checkpoints.Remove(identity);
    }

    private void Announce(StoredCheckpoint checkpoint, Span? creating)
    {
        // First: whoever hears that it is ready finds its trace complete.
        creating?.Dispose();
        checkpoint.Complete();
        Checkpoint ready = checkpoint.Describe();
        platform.Logger.CheckpointReady(ready.Name, ready.Uuid, ready.SourceUuid.ToString(), ready.StoredBytes, ready.Pause);
    }

    private Exception ToFailure(Exception error, ResourceIdentity identity) => error switch
    {
        OperationCanceledException when platform.Rundown.Closing.IsCancellationRequested =>
            new ObjectDisposedException(nameof(IUnikraftPlatform)),
        OperationCanceledException => checkpoints.NotFound(identity.Name),
        WrongStateException or ResourceNotFoundException or ObjectDisposedException => error,
        StorageException full =>
            new StorageException(full.Path, $"Failed to allocate checkpoint: {full.Message}", full.IsFull),
        BlockDeviceException disk =>
            new BlockDeviceException(disk.Error, disk.Device, $"Failed to allocate checkpoint: {disk.Message}", disk),
        DiskImageException image =>
            new DiskImageException(image.Error, image.Path, $"Failed to allocate checkpoint: {image.Message}", image),
        PlatformException known =>
            new PlatformException(known.Code, $"Failed to allocate checkpoint: {known.Message}", known),
        _ => new HypervisorException($"Failed to allocate checkpoint: {error.Message}", error),
    };

    private async Task<Checkpoint> AwaitReadyAsync(StoredCheckpoint checkpoint, TimeSpan timeout, CancellationToken cancellationToken)
    {
        try
        {
            await checkpoint.Ready.WaitAsync(timeout, platform.TimeProvider, cancellationToken).ConfigureAwait(false);
            return checkpoint.Describe();
        }
        catch (TimeoutException)
        {
            throw new PlatformException(
                PlatformErrorCode.TimedOut,
                $"Operation timed out: checkpoint '{checkpoint.Identity.Name}' is in state '{CheckpointState.Starting.ToText()}', not '{CheckpointState.Ready.ToText()}'");
        }
    }

    private StoredCheckpoint Find(NameOrUuid checkpoint)
    {
        platform.Rundown.ThrowIfClosed();
        return checkpoints.Find(checkpoint);
    }
}

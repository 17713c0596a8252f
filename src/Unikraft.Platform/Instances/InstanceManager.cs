using System.Collections.Immutable;
using System.Diagnostics;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Templates;

namespace Unikraft.Platform.Instances;

internal sealed class InstanceManager(
    PlatformContext platform,
    ResourceRegistry<InstanceController> instances,
    LiveInstances live,
    ResourceRegistry<StoredCheckpoint> checkpoints,
    ResourceRegistry<StoredTemplate> templates,
    TemplateStore templateStore) : IInstanceManager, IGuestRequests
{
    private readonly TransitionLog _transitions = new(TransitionLog.OfAllInstances);

    public Task<Instance> CreateAsync(CreateInstanceRequest request, CancellationToken cancellationToken = default) =>
        CreateAsync(request, onlyIn: null, cancellationToken);

    Task IGuestRequests.ConvertAsync(InstanceController instance, InstanceRun run) =>
        templateStore.ConvertAsync(instance, run, autokill: null, CancellationToken.None);

    async Task<Guid> IGuestRequests.ForkAsync(InstanceController instance, InstanceRun run)
    {
        int max = platform.Settings.MaxInstancesForForks;
        if (!live.TryBeginFork(max))
        {
            throw new InvalidRequestException(
                $"Guests can fork up to {max} instances; see {nameof(PlatformOptions)}.{nameof(PlatformOptions.MaxInstancesForForks)}");
        }

        try
        {
            CreateInstanceRequest request = new() { BranchFrom = instance.Identity.Uuid };
            return (await CreateAsync(request, run, CancellationToken.None).ConfigureAwait(false)).Uuid;
        }
        finally
        {
            live.EndFork();
        }
    }

    public async Task<Instance> StartAsync(NameOrUuid instance, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        InstanceController found = instances.Find(instance);
        using Retention.Use use = found.Retention.TryEnter() ?? throw instances.NotFound(instance);
        await found.StartAsync(cancellationToken).ConfigureAwait(false);
        await platform.TryCommitAsync().ConfigureAwait(false);
        return found.Describe();
    }

    public async Task<Instance> StopAsync(NameOrUuid instance, StopRequest? request = null, CancellationToken cancellationToken = default)
    {
        platform.Rundown.ThrowIfClosed();
        if (request is { Force: true, GracePeriod: not null })
        {
            throw new InvalidRequestException("Cannot combine a forced stop with a grace period");
        }

        Durations.RequireGracePeriod(request?.GracePeriod);
        Instance stopped = await instances.Find(instance).StopAsync(
            StopInitiator.User,
            request?.Force ?? false,
            request?.GracePeriod ?? platform.Settings.StopGracePeriod,
            cancellationToken).ConfigureAwait(false);
        await platform.TryCommitAsync().ConfigureAwait(false);
        return stopped;
    }

    public async Task<Instance> WaitAsync(
        NameOrUuid instance,
        InstanceState state,
        TimeSpan? timeout = null,
        CancellationToken cancellationToken = default)
    {
        platform.Rundown.ThrowIfClosed();
        Durations.RequireTimeout(timeout);
        if (!Enum.IsDefined(state))
        {
            throw new InvalidRequestException($"'{state}' is not an instance state");
        }

        cancellationToken.ThrowIfCancellationRequested();
        return await instances.Find(instance).WaitAsync(state, timeout, cancellationToken).ConfigureAwait(false);
    }

    public IAsyncEnumerable<InstanceTransition> WatchAsync(NameOrUuid instance, CancellationToken cancellationToken = default) =>
        Find(instance).WatchAsync(cancellationToken);

    public IAsyncEnumerable<InstanceTransition> WatchAllAsync(CancellationToken cancellationToken = default)
    {
        platform.Rundown.ThrowIfClosed();
        return _transitions.ReadAsync(cancellationToken);
    }

    public async Task<Instance> DeleteAsync(NameOrUuid instance, CancellationToken cancellationToken = default)
    {
        platform.Rundown.ThrowIfClosed();
        cancellationToken.ThrowIfCancellationRequested();
        InstanceController found = instances.Find(instance);
        Instance before = found.Describe();
        if (!await found.Retention.TryDeleteAsync().ConfigureAwait(false))
        {
            throw instances.NotFound(instance);
        }

        await platform.CommitAsync().ConfigureAwait(false);
        platform.Logger.InstanceDeleted(before.Name, before.Uuid);
        return before;
    }

    public async Task<Instance> PatchAsync(
        NameOrUuid instance,
        IReadOnlyList<PatchOperation> operations,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(operations);
        cancellationToken.ThrowIfCancellationRequested();
        InstanceController found = Find(instance);
        if (!found.Retention.TryPatch(operations))
        {
            throw instances.NotFound(instance);
        }

        await platform.CommitAsync().ConfigureAwait(false);
        return found.Describe();
    }

    public Instance Get(NameOrUuid instance) => Find(instance).Describe();

    public IReadOnlyList<Instance> List()
    {
        platform.Rundown.ThrowIfClosed();
        return [.. instances.List().Select(instance => instance.Describe())];
    }

    public IReadOnlyList<CheckpointReference> GetHistory(NameOrUuid instance) => Find(instance).Snapshots.History;

    public LogOutput ReadLog(NameOrUuid instance, LogRange? range = null) => Find(instance).Log.Read(range);

    public IInstanceConsole AttachConsole(NameOrUuid instance, ConsoleOptions? options = null) =>
        new InstanceConsole(Find(instance), options?.FromStart ?? false);

    /// <summary>Stops all instances on behalf of the platform, and waits until nothing of their machines is left.</summary>
    /// <param name="cancellationToken">When cancelled, what still runs is force-stopped.</param>
    public async Task StopAllAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<InstanceController> all = live.List();
        platform.Logger.StoppingAll(all.Count);
        Task regular = Task.WhenAll(all.Select(instance => instance.ShutDownAsync(force: false)));
        try
        {
            await regular.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            platform.Logger.ForceStoppingAll();
            await Task.WhenAll(all.Select(instance => instance.ShutDownAsync(force: true))).ConfigureAwait(false);
            await regular.ConfigureAwait(false);
        }
    }

    /// <summary>Ends all instances for good.</summary>
    public Task CloseAllAsync() => Task.WhenAll(live.List().Select(instance => instance.CloseAsync(
        StopInitiator.Platform,
        static () => new ObjectDisposedException(nameof(IUnikraftPlatform)))));

    /// <summary>No instance is left: those who watch them have nothing to wait for.</summary>
    public void EndWatching() => _transitions.Complete();

    private InstanceController Find(NameOrUuid instance)
    {
        platform.Rundown.ThrowIfClosed();
        return instances.Find(instance);
    }

    private async Task<Instance> CreateAsync(CreateInstanceRequest request, InstanceRun? onlyIn, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        CreateInstanceRules.Require(request, platform.Hypervisor.Info);
        ResourceMetadata metadata = ResourceMetadata.Of(request.Tags, request.DeleteLock, request.Autokill);

        InstanceController? source = request.BranchFrom is { } branchFrom ? instances.Find(branchFrom) : null;
        (IInstanceSource? stored, Retention.Use? load) = BeginLoad(request);
        using Retention.Use? scopeOfLoad = load;
        ResourceIdentity identity = instances.Reserve(
            request.Name,
            source?.Identity.Name ?? stored?.Identity.Name ?? ResourceName.OfImage(request.Image!));
        using Activity? activity = platform.Telemetry.Begin(TelemetryNames.CreateActivity, identity);

        InstanceController? instance = null;
        Func<TimeSpan, CancellationToken, Task<Instance>>? running;
        try
        {
            instance = await MakeAsync(identity, request, metadata, source, onlyIn, stored, cancellationToken).ConfigureAwait(false);
            running = request.WaitTimeout is null ? null : instance.ExpectRunning();
            if (platform.Data is { } data)
            {
                await KeepAsync(data, instance, request, cancellationToken).ConfigureAwait(false);
            }

            if (request.Autostart)
            {
                await instance.StartAsync(cancellationToken).ConfigureAwait(false);
            }

            cancellationToken.ThrowIfCancellationRequested();
            Publish(identity, instance, stored, load);
            await platform.CommitAsync().ConfigureAwait(false);
        }
        catch
        {
            // Nobody finds it any more, before it ends.
            Remove(identity);
            platform.Data?.Logs.Detach(identity.Uuid);
            if (instance is not null)
            {
                await CloseAsync(instance).ConfigureAwait(false);
            }

            throw;
        }

        platform.Logger.InstanceCreated(identity.Name, identity.Uuid, instance.Describe().Origin?.Name ?? request.Image!.Name);
        if (running is null)
        {
            return instance.Describe();
        }

        try
        {
            return await running(request.WaitTimeout!.Value, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            Remove(identity);
            await CloseAsync(instance).ConfigureAwait(false);
            await platform.TryCommitAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Adds an instance that was kept.</summary>
    public void Recover(Guid uuid, InstanceRecord record, DataDirectory data)
    {
        ResourceIdentity identity = record.ToIdentity(uuid);
        Blueprint blueprint = new(
            record.Configuration.ToConfiguration(data),
            data.RecoverSnapshot(record.Snapshot),
            record.Origin.ToOrigin(),
            data.ReadLineage(record.Lineage));
        InstanceController instance = Make(identity, blueprint, record.ToMetadata(), record.RestartPolicy);
        if (data.Logs.Restore(uuid, instance.Log) is { } damage)
        {
            platform.Logger.DamageFound(KeptLogs.NameOf(uuid), damage);
        }

        instances.Recover(identity, instance);
        instance.Restore(record, data);
    }

    // What the start and the instance need after a restart of the host: the bytes of the image, and the snapshot unless it is about to be used up.
    private static async Task KeepAsync(
        DataDirectory data,
        InstanceController instance,
        CreateInstanceRequest request,
        CancellationToken cancellationToken)
    {
        if (request.Image is { } image)
        {
            await data.Images.KeepAsync(image, cancellationToken).ConfigureAwait(false);
        }

        if (!request.Autostart)
        {
            await instance.Snapshots.KeepNextAsync(data, cancellationToken).ConfigureAwait(false);
        }
    }

    private void Publish(ResourceIdentity identity, InstanceController instance, IInstanceSource? stored, Retention.Use? load)
    {
        if (platform.Data is { } data)
        {
            lock (data.Gate)
            {
                PublishTogether();
            }
        }
        else
        {
            PublishTogether();
        }

        void PublishTogether()
        {
            instances.Add(identity, instance);
            instance.Publish();
            stored?.CountLoad();
            load?.Succeed();
        }
    }

    private bool Remove(ResourceIdentity identity)
    {
        bool isRemoved = instances.Remove(identity);
        if (isRemoved && platform.Data is { } data)
        {
            data.Removed(new StateKey(StateKind.Instance, identity.Uuid));
        }

        return isRemoved;
    }

    private async Task<InstanceController> MakeAsync(
        ResourceIdentity identity,
        CreateInstanceRequest request,
        ResourceMetadata metadata,
        InstanceController? source,
        InstanceRun? onlyIn,
        IInstanceSource? stored,
        CancellationToken cancellationToken)
    {
        Blueprint blueprint = (source, stored) switch
        {
            (not null, _) => await BranchAsync(source, onlyIn, request.Snapshot, cancellationToken).ConfigureAwait(false),
            (_, not null) => stored.Load(),
            _ => new Blueprint(ConfigurationOf(request), Snapshot: null, Origin: null, History: []),
        };
        if (request.Autokill is null && stored is not null)
        {
            metadata = metadata with { Autokill = stored.InheritedAutokill };
        }

        return Make(identity, blueprint, metadata, request.RestartPolicy);
    }

    private InstanceController Make(ResourceIdentity identity, Blueprint blueprint, ResourceMetadata metadata, RestartPolicy restartPolicy)
    {
        InstanceController? instance = null;
        Retention retention = new(
            platform,
            "instance",
            identity,
            metadata,
            () => Remove(identity),
            () => CloseAsync(instance!));
        InstanceTransitions transitions = new(identity, platform.TimeProvider, _transitions);
        instance = new InstanceController(platform, identity, blueprint, restartPolicy, retention, transitions, this);
        live.Add(instance);
        return instance;
    }

    private async Task<Blueprint> BranchAsync(
        InstanceController source,
        InstanceRun? onlyIn,
        SnapshotOptions? options,
        CancellationToken cancellationToken)
    {
        CloneSource clone = await platform.CancelOnCloseAsync(
            token => source.Snapshots.BeginCloneAsync(ClonePurpose.Branch, onlyIn, options?.WaitForPending ?? false, token),
            cancellationToken).ConfigureAwait(false);
        SnapshotReference? snapshot = clone.Snapshot;
        if (clone.Machine is not null)
        {
            snapshot = await platform.CancelOnCloseAsync(
                token => source.Snapshots.CaptureAsync(clone, ClonePurpose.Branch, options?.PauseBudget, token),
                cancellationToken).ConfigureAwait(false);
        }

        InstanceOrigin origin = new(InstanceOriginKind.Branch, clone.Identity.Uuid, clone.Identity.Name);
        return new Blueprint(clone.Configuration, snapshot, origin, clone.History);
    }

    private InstanceConfiguration ConfigurationOf(CreateInstanceRequest request) => new(
        request.Image!,
        request.Vcpus ?? platform.Settings.DefaultVcpus,
        request.MemoryMb ?? platform.Settings.DefaultMemoryMb,
        [.. request.Args ?? []],
        new Dictionary<string, string>(request.Env ?? ImmutableDictionary<string, string>.Empty, StringComparer.Ordinal).AsReadOnly());

    private Task CloseAsync(InstanceController instance)
    {
        NameOrUuid uuid = instance.Identity.Uuid;
        return live.CloseAsync(instance, StopInitiator.User, () => instances.NotFound(uuid));
    }

    // From here on the source does not expire until the load is over.
    private (IInstanceSource? Source, Retention.Use? Load) BeginLoad(CreateInstanceRequest request)
    {
        switch (request)
        {
            case { Checkpoint: { } reference }:
                StoredCheckpoint checkpoint = checkpoints.Find(reference);
                return (checkpoint, checkpoint.Retention.TryEnter() ?? throw checkpoints.NotFound(reference));
            case { Template: { } reference }:
                StoredTemplate template = templates.Find(reference);
                return (template, template.Retention.TryEnter() ?? throw templates.NotFound(reference));
            default:
                return (null, null);
        }
    }
}

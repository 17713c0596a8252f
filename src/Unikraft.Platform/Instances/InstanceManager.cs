using System.Collections.Immutable;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Templates;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Instances;

internal sealed class InstanceManager(
    PlatformContext platform,
    ResourceRegistry<InstanceController> instances,
    LiveInstances live,
    ResourceRegistry<StoredCheckpoint> checkpoints,
    ResourceRegistry<StoredTemplate> templates,
    TemplateStore templateStore,
    VolumeStore volumes) : IInstanceManager, IGuestRequests
{
    private readonly TransitionLog _transitions = new();

    public async Task<Instance> CreateAsync(CreateInstanceRequest request, CancellationToken cancellationToken = default) =>
        (await CreateAsync(request, replicas: 0, onlyIn: null, cancellationToken).ConfigureAwait(false))[0];

    public Task<IReadOnlyList<Instance>> CreateReplicasAsync(
        CreateInstanceRequest request,
        int replicas,
        CancellationToken cancellationToken = default) => CreateAsync(request, replicas, onlyIn: null, cancellationToken);

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
            return (await CreateAsync(request, replicas: 0, run, CancellationToken.None).ConfigureAwait(false))[0].Uuid;
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

        if (request is { Force: true, DrainTimeout: not null })
        {
            throw new InvalidRequestException("Cannot combine 'drain_timeout_ms' with 'force'");
        }

        Durations.RequireGracePeriod(request?.GracePeriod);
        StopPlan plan = new(
            request?.Force ?? false,
            request?.GracePeriod ?? platform.Settings.StopGracePeriod,
            Durations.RequireDrainTimeout(request?.DrainTimeout, platform.Settings.MaxDrainTimeout));
        Instance stopped = await instances.Find(instance).StopAsync(StopInitiator.User, plan, cancellationToken).ConfigureAwait(false);
        await platform.TryCommitAsync().ConfigureAwait(false);
        return stopped;
    }

    public async Task<Instance> SuspendAsync(NameOrUuid instance, CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        InstanceController found = instances.Find(instance);
        await found.Suspension.SuspendAsync(cancellationToken).ConfigureAwait(false);
        await platform.TryCommitAsync().ConfigureAwait(false);
        return found.Describe();
    }

    public async Task<IInstanceConnection> ConnectAsync(NameOrUuid instance, CancellationToken cancellationToken = default)
    {
        platform.Rundown.ThrowIfClosed();
        cancellationToken.ThrowIfCancellationRequested();
        return await instances.Find(instance).Connections.ConnectAsync(cancellationToken).ConfigureAwait(false);
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
        operations = RomPatch.Resolve(operations);
        if (platform.Data is { } data)
        {
            // What it is to boot outlives the host, as what it was created with does.
            foreach (PatchOperation.SetImage set in operations.OfType<PatchOperation.SetImage>().Where(static set => set.Image is not null))
            {
                await data.Images.KeepAsync(set.Image, cancellationToken).ConfigureAwait(false);
            }
        }

        if (!found.Updates.TryPatch(operations))
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

    public IReadOnlyList<InstanceLogOutput> ReadLogs(params IReadOnlyList<InstanceLogRequest> requests)
    {
        ArgumentNullException.ThrowIfNull(requests);
        InstanceController[] found = [.. requests.Select(request => Find(request.Instance))];
        foreach (InstanceLogRequest request in requests)
        {
            InstanceLog.Require(request.Range);
        }

        return [.. found.Zip(requests, static (instance, request) => new InstanceLogOutput(
            instance.Identity.Uuid,
            instance.Identity.Name,
            instance.Describe().State,
            instance.Log.Read(request.Range)))];
    }

    public IReadOnlyList<InstanceMetrics> GetMetrics(params IReadOnlyList<NameOrUuid> instances)
    {
        ArgumentNullException.ThrowIfNull(instances);
        platform.Rundown.ThrowIfClosed();
        return instances.Count == 0 ? Measure(withMemory: true)
            : [.. instances.Select(instance => Find(instance)).ToArray().Select(static found => found.Measure())];
    }

    /// <summary>Measures all instances.</summary>
    /// <param name="withMemory">Whether their memory is looked through as well.</param>
    public IReadOnlyList<InstanceMetrics> Measure(bool withMemory) => [.. instances.List().Select(instance => instance.Measure(withMemory))];

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

    private async Task<IReadOnlyList<Instance>> CreateAsync(
        CreateInstanceRequest request,
        int replicas,
        InstanceRun? onlyIn,
        CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        using Rundown.Scope scope = platform.Rundown.Enter();
        cancellationToken.ThrowIfCancellationRequested();
        CreateInstanceRules.Require(request, replicas, platform.Hypervisor.Info);
        TimeSpan? waitTimeout = Durations.WaitTimeoutOf(request);
        ResourceMetadata metadata = ResourceMetadata.Of(request.Tags, request.DeleteLock, request.Autokill);
        if (request.BranchFrom is not null && onlyIn is null)
        {
            LicenseCheck.RequireBranching(platform);
        }

        InstanceController? source = request.BranchFrom is { } branchFrom ? instances.Find(branchFrom) : null;
        (IInstanceSource? stored, Retention.Use? load) = BeginLoad(request);
        using Retention.Use? scopeOfLoad = load;
        List<Creation> creations = [];
        bool isPublished = false;
        Span? creating = null;
        Span? continuing = null;
        try
        {
            Reserve(creations, request.Name, replicas, source?.Identity.Name ?? stored?.Identity.Name ?? ResourceName.OfImage(request.Image!));
            creating = platform.Telemetry.Begin(TelemetryNames.CreateActivity, creations[0].Identity);
            continuing = BeginToContinue(request, source, stored);
            Blueprint blueprint = await BlueprintAsync(request, source, onlyIn, stored, cancellationToken).ConfigureAwait(false);
            using (blueprint.Snapshot)
            {
                InstanceConfiguration configuration = blueprint.Configuration;
                blueprint = blueprint with { Configuration = configuration with { Annotations = configuration.Annotations.With(request.Annotations) } };
                foreach (Creation creation in creations)
                {
                    await platform.Volumes.PrepareAsync(
                        creation.Identity,
                        blueprint.Snapshot is null ? null : await blueprint.Snapshot.OpenAsync(cancellationToken).ConfigureAwait(false),
                        request,
                        volume => volumes.CreateOwnedAsync(volume, creation.Identity.Uuid, cancellationToken),
                        cancellationToken).ConfigureAwait(false);
                    creation.Instance = Make(creation.Identity, blueprint, request, metadata, stored);
                    creation.Running = waitTimeout is null ? null : creation.Instance.ExpectRunning();
                }
            }

            if (platform.Data is { } data)
            {
                await KeepAsync(data, creations, request, cancellationToken).ConfigureAwait(false);
            }

            if (request.Autostart)
            {
                await Task.WhenAll(creations.Select(creation => creation.Instance!.StartAsync(cancellationToken))).ConfigureAwait(false);
            }

            continuing?.Dispose();
            cancellationToken.ThrowIfCancellationRequested();
            Publish(creations, stored, load);
            isPublished = true;
            await platform.CommitAsync().ConfigureAwait(false);
        }
        catch (Exception error)
        {
            continuing?.Fail(error);
            creating?.Fail(error);
            creating?.Dispose();
            if (isPublished)
            {
                RevokeLoad(stored, load, creations.Count);
            }

            await UndoAsync(creations).ConfigureAwait(false);
            throw;
        }
        finally
        {
            continuing?.Dispose();
        }

        using Span? untilItRuns = creating;
        foreach (Creation creation in creations)
        {
            platform.Logger.InstanceCreated(
                creation.Identity.Name,
                creation.Identity.Uuid,
                creation.Instance!.Origin?.Name ?? request.Image!.Name);
        }

        if (waitTimeout is not { } timeout)
        {
            return [.. creations.Select(creation => creation.Instance!.Describe())];
        }

        try
        {
            return await Task.WhenAll(creations.Select(creation => creation.Running!(timeout, cancellationToken))).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            untilItRuns?.Fail(error);
            if (error is OperationCanceledException && cancellationToken.IsCancellationRequested)
            {
                RevokeLoad(stored, load, creations.Count);
                await UndoAsync(creations).ConfigureAwait(false);
                await platform.TryCommitAsync().ConfigureAwait(false);
            }

            throw;
        }
    }

    /// <summary>Adds an instance that was kept.</summary>
    public void Recover(Guid uuid, InstanceRecord record, DataDirectory data)
    {
        ResourceIdentity identity = record.ToIdentity(uuid);
        bool isAhead = platform.Volumes.Recover(identity, record);
        if (isAhead)
        {
            // What was flushed to a volume is worth more than memory from before: as after a power cut, the image boots.
            record = record with { Snapshot = null, IsStandby = false };
            platform.Logger.SnapshotOutdated(identity.Name, uuid);
        }

        using SnapshotReference? snapshot = data.RecoverSnapshot(record.Snapshot);
        Blueprint blueprint = new(
            record.Configuration.ToConfiguration(data),
            snapshot,
            record.Origin.ToOrigin(),
            data.ReadLineage(record.Lineage));
        InstancePolicies policies = new(
            record.RestartPolicy,
            record.Features,
            record.ScaleToZero is { } scale ? new ScaleToZero(scale.Stateful, TimeSpan.FromTicks(scale.CooldownTime)) : null,
            ServiceRules.Resolve(record.Services));
        InstanceController instance = Make(identity, blueprint, policies, record.ToMetadata());
        if (data.Logs.Restore(uuid, instance.Log, record.LogEnd) is { } damage)
        {
            platform.Logger.DamageFound(KeptLogs.NameOf(uuid), damage);
            data.NoteDamage(new DataDamage(Path.Combine(data.Root, KeptLogs.NameOf(uuid)), damage, [uuid]));
        }

        instances.Recover(identity, instance);
        instance.Restore(record, data);
        if (isAhead)
        {
            data.Changed(instance);
        }
    }

    // What the start and the instance need after a restart of the host: the bytes of the image, and the snapshot unless it is about to be used up.
    private static async Task KeepAsync(
        DataDirectory data,
        List<Creation> creations,
        CreateInstanceRequest request,
        CancellationToken cancellationToken)
    {
        if (request.Image is { } image)
        {
            await data.Images.KeepAsync(image, cancellationToken).ConfigureAwait(false);
        }

        if (!request.Autostart)
        {
            foreach (Creation creation in creations)
            {
                await creation.Instance!.Snapshots.KeepNextAsync(data, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private void Publish(List<Creation> creations, IInstanceSource? stored, Retention.Use? load)
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
            foreach (Creation creation in creations)
            {
                instances.Add(creation.Identity, creation.Instance!);
            }

            load?.Succeed();
            stored?.CountLoads(creations.Count);
            foreach (Creation creation in creations)
            {
                creation.Instance!.Publish();
            }
        }
    }

    // Nobody has loaded what nothing has come of.
    private void RevokeLoad(IInstanceSource? stored, Retention.Use? load, int count)
    {
        lock (platform.Data?.Gate ?? new Lock())
        {
            stored?.CountLoads(-count);
            load?.Revoke();
        }
    }

    private bool Remove(ResourceIdentity identity)
    {
        // First: what somebody has seen to be gone is gone from the disk with the next change that is told of.
        if (instances.TryFind(identity.Uuid, out _))
        {
            platform.Data?.Removed(new StateKey(StateKind.Instance, identity.Uuid));
        }

        return instances.Remove(identity);
    }

    // The first one is called as the request says, the others after it.
    private void Reserve(List<Creation> creations, string? name, int replicas, string baseName)
    {
        creations.Add(new Creation(instances.Reserve(name, baseName)));
        for (int i = 0; i < replicas; i++)
        {
            creations.Add(new Creation(instances.Reserve(requested: null, creations[0].Identity.Name)));
        }
    }

    private async Task UndoAsync(IReadOnlyList<Creation> creations)
    {
        foreach (Creation creation in creations)
        {
            Remove(creation.Identity);
            platform.Data?.Logs.Detach(creation.Identity.Uuid);
        }

        await Task.WhenAll(creations.Select(creation => creation.Instance is { } made ? CloseAsync(made) : Task.CompletedTask))
            .ConfigureAwait(false);
    }

    private async Task<Blueprint> BlueprintAsync(
        CreateInstanceRequest request,
        InstanceController? source,
        InstanceRun? onlyIn,
        IInstanceSource? stored,
        CancellationToken cancellationToken)
    {
        if (source is not null)
        {
            return await BranchAsync(source, onlyIn, request.Snapshot, cancellationToken).ConfigureAwait(false);
        }

        return stored?.Load() ?? new Blueprint(ConfigurationOf(request), Snapshot: null, Origin: null, History: []);
    }

    // From the snapshot, which is taken, opened and restored, to vCPUs that run, if they are to.
    private Span? BeginToContinue(CreateInstanceRequest request, InstanceController? source, IInstanceSource? stored) => (source, stored) switch
    {
        ({ } branched, _) => platform.Telemetry.Begin(TelemetryNames.BranchActivity, branched.Identity),
        (_, { } loaded) => platform.Telemetry.Begin(
            request.Template is null ? TelemetryNames.LoadActivity : TelemetryNames.CloneActivity,
            loaded.Identity),
        _ => null,
    };

    private InstanceController Make(
        ResourceIdentity identity,
        Blueprint blueprint,
        CreateInstanceRequest request,
        ResourceMetadata metadata,
        IInstanceSource? stored)
    {
        if (request.Autokill is null && stored is not null)
        {
            metadata = metadata with { Autokill = stored.InheritedAutokill };
        }

        return Make(identity, blueprint, new InstancePolicies(request.RestartPolicy, request.Features, request.ScaleToZero, ServiceRules.Resolve(request.Services)), metadata);
    }

    private InstanceController Make(ResourceIdentity identity, Blueprint blueprint, InstancePolicies policies, ResourceMetadata metadata)
    {
        InstanceController? instance = null;
        Retention retention = new(
            platform,
            "instance",
            identity,
            metadata,
            () => Remove(identity),
            () => CloseAsync(instance!));
        instance = new InstanceController(
            platform,
            identity,
            blueprint with { Snapshot = blueprint.Snapshot?.Share() },
            policies,
            retention,
            new InstanceTransitions(identity, platform.TimeProvider, _transitions),
            this);
        platform.Volumes.Watch(
            identity.Uuid,
            () =>
            {
                Instance now = instance.Describe();
                return (now.State, now.HasSnapshot);
            },
            () => platform.Data?.Changed(instance));
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

    /// <summary>An instance in the making.</summary>
    private sealed class Creation(ResourceIdentity identity)
    {
        public ResourceIdentity Identity => identity;

        public InstanceController? Instance { get; set; }

        /// <summary>Waits for it to be running, if that is wanted.</summary>
        public Func<TimeSpan, CancellationToken, Task<Instance>>? Running { get; set; }
    }
}

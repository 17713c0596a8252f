using Microsoft.Extensions.Logging;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Templates;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform;

internal sealed class UnikraftPlatform : IUnikraftPlatform
{
    private readonly PlatformContext _context;
    private readonly InstanceManager _instances;
    private readonly CheckpointStore _checkpoints;
    private readonly TemplateStore _templates;
    private readonly VolumeStore _volumes;
    private readonly Lock _lock = new();
    private readonly DataDirectory? _data;
    private Task? _disposal;

    /// <param name="options">Validated options.</param>
    /// <param name="timeProvider">The clock.</param>
    /// <param name="loggerFactory">Where to log.</param>
    /// <param name="hypervisorFactory">Makes the backend.</param>
    /// <param name="fileLayer">The file system of the data directory; that of the host when <see langword="null"/>.</param>
    /// <param name="volumeLayer">The file system of volumes; that of the host when <see langword="null"/>.</param>
    /// <param name="archiveLayer">The file system of archives; that of the host when <see langword="null"/>.</param>
    /// <param name="journalOptions">How the journal of volumes is kept; as usual when <see langword="null"/>.</param>
    public UnikraftPlatform(
        PlatformOptions options,
        TimeProvider timeProvider,
        ILoggerFactory loggerFactory,
        Func<HypervisorContext, IHypervisor> hypervisorFactory,
        IFileLayer? fileLayer = null,
        IFileLayer? volumeLayer = null,
        IFileLayer? archiveLayer = null,
        VolumeJournalOptions? journalOptions = null)
    {
        // First what may be refused: a backend is dear.
        PlatformSettings settings = PlatformSettings.From(options);
        ILogger logger = loggerFactory.CreateLogger(TelemetryNames.Source);
        VolumeFiles? volumeFiles = options.VolumeDirectory is { } directory ? VolumeFiles.Open(directory, settings.DataDirectory is not null, logger, volumeLayer, journalOptions) : null;
        VolumeHypervisor hypervisor;
        try
        {
            hypervisor = new VolumeHypervisor(hypervisorFactory(new HypervisorContext(timeProvider, loggerFactory)));
        }
        catch
        {
            volumeFiles?.Dispose();
            throw;
        }

        _context = new PlatformContext(
            hypervisor,
            settings,
            timeProvider,
            logger,
            new Telemetry(timeProvider),
            new Rundown(),
            new QuotaUse(options.Quotas));
        ResourceRegistry<InstanceController> instances = new("instance", "An instance", timeProvider, _context.Quotas);
        ResourceRegistry<StoredCheckpoint> checkpoints = new("checkpoint", "A checkpoint", timeProvider, _context.Quotas);
        ResourceRegistry<StoredTemplate> templates = new("template", "A template", timeProvider, _context.Quotas);
        _context.Volumes = new VolumeCatalog(_context, volumeFiles, volumeLayer, journalOptions);
        hypervisor.Use(_context.Volumes);
        DataDirectory? data = _context.Data = OpenData(_context, hypervisor, fileLayer);
        _volumes = new VolumeStore(_context, instances);
        LiveInstances live = new();
        _templates = new TemplateStore(_context, instances, live, templates);
        _instances = new InstanceManager(_context, instances, live, checkpoints, templates, _templates, _volumes);
        _checkpoints = new CheckpointStore(_context, instances, checkpoints);
        if (data is not null)
        {
            _data = data;
            IFileLayer archives = archiveLayer ?? new HostFileLayer(hypervisor.GetFeature<IDirectorySync>());
            Data = new DataDirectoryService(_context, data, checkpoints, instances, templates, _checkpoints, archives);
            try
            {
                Recover(data, instances, checkpoints, templates);
            }
            catch
            {
                // Nobody else knows of what is held by now: the directory and its lock, the backend, what was recovered so far.
                DisposeAsync().AsTask().GetAwaiter().GetResult();
                throw;
            }
        }

        _context.Telemetry.Observe(
            () => [.. instances.List().Select(instance => instance.Describe())],
            () => checkpoints.List().Count,
            () => templates.List().Count);
        _context.Telemetry.Observe(_instances.Measure);
        _context.Logger.PlatformReady(hypervisor.Info.Name, hypervisor.Info.Description);
    }

    public IInstanceManager Instances => _instances;

    public ICheckpointStore Checkpoints => _checkpoints;

    public ITemplateStore Templates => _templates;

    public IDataDirectory? Data { get; }

    public IVolumeStore Volumes => _volumes;

    public HypervisorInfo Hypervisor => _context.Hypervisor.Info;

    internal Telemetry Telemetry => _context.Telemetry;

    /// <summary>Waits until instances that have stopped have given their volumes back, and for what is being done to volumes in the background.</summary>
    internal async Task WhenVolumesIdleAsync()
    {
        await Task.WhenAll(_instances.List().Select(instance => _context.Volumes.SettleAsync(instance.Uuid, CancellationToken.None))).ConfigureAwait(false);
        if (_data is not null)
        {
            await _data.CollectedAsync().ConfigureAwait(false);
        }

        await _context.Volumes.WhenIdleAsync().ConfigureAwait(false);
    }

    public async Task StopAllAsync(CancellationToken cancellationToken = default)
    {
        using Rundown.Scope scope = _context.Rundown.Enter();
        await _instances.StopAllAsync(cancellationToken).ConfigureAwait(false);
    }

    public ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            return new ValueTask(_disposal ??= DisposeOnceAsync());
        }
    }

    private static DataDirectory? OpenData(PlatformContext context, VolumeHypervisor hypervisor, IFileLayer? fileLayer)
    {
        DataDirectory? data = null;
        try
        {
            if (context.Settings.DataDirectory is not null)
            {
                data = DataDirectory.Open(context.Settings, hypervisor, context.TimeProvider, context.Logger, fileLayer);
                context.Volumes.OpenKept();
            }

            return data;
        }
        catch
        {
            // Nobody else knows of them yet, and they have nothing to wait for.
            data?.DisposeAsync().AsTask().GetAwaiter().GetResult();
            context.Volumes.DisposeAsync().AsTask().GetAwaiter().GetResult();
            hypervisor.DisposeAsync().AsTask().GetAwaiter().GetResult();
            context.Telemetry.Dispose();
            context.Rundown.Dispose();
            throw;
        }
    }

    private void Recover(
        DataDirectory data,
        ResourceRegistry<InstanceController> instances,
        ResourceRegistry<StoredCheckpoint> checkpoints,
        ResourceRegistry<StoredTemplate> templates)
    {
        (List<(Guid Uuid, ResourceRecord Record)> sound, List<(StateKey Key, DataDamageException Damage)> damaged) = data.Recover();
        foreach ((Guid uuid, ResourceRecord record) in sound.OrderBy(static entry => entry.Record.Order))
        {
            switch (record)
            {
                case InstanceRecord instance:
                    _instances.Recover(uuid, instance, data);
                    break;
                case CheckpointRecord checkpoint:
                    _checkpoints.Recover(uuid, checkpoint, data);
                    break;
                case TemplateRecord template:
                    _templates.Recover(uuid, template, data);
                    break;
            }
        }

        foreach ((StateKey key, DataDamageException damage) in damaged)
        {
            _context.Logger.ResourceDamaged(damage, key.ToString());
            switch (key.Kind)
            {
                case StateKind.Instance:
                    instances.AddDamaged(key.Uuid, damage);
                    break;
                case StateKind.Checkpoint:
                    checkpoints.AddDamaged(key.Uuid, damage);
                    break;
                default:
                    templates.AddDamaged(key.Uuid, damage);
                    break;
            }
        }

        foreach (DataDamage damage in _context.Volumes.FindUnusable())
        {
            data.NoteDamage(damage);
        }

        data.EndRecovery();
        foreach (InstanceController instance in instances.List())
        {
            // What waited for it to stop need not wait any more.
            _context.Volumes.OnEnded(instance.Identity.Uuid);
        }

        _context.Volumes.CompleteAdoptions(sound
            .Where(static entry => entry.Record is TemplateRecord { Snapshot: not null })
            .ToDictionary(static entry => entry.Uuid, static entry => entry.Record.Snapshot!.Value));
        if (!data.IsHeldBack)
        {
            _context.Volumes.Collect(instances.List().Select(static instance => instance.Identity.Uuid).Concat(data.Snapshots.List()).ToHashSet());
        }

        _context.Logger.DataRecovered(data.Root, instances.List().Count, checkpoints.List().Count, templates.List().Count);
    }

    private async Task DisposeOnceAsync()
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);

        if (_data is not null)
        {
            await _data.FreezeAsync().ConfigureAwait(false);
            _context.Volumes.Freeze();
        }

        // Killing the machines is what ends a regular stop that is under way, so it comes before waiting for operations.
        Task drained = _context.Rundown.CloseAsync();
        await _instances.CloseAllAsync().ConfigureAwait(false);
        await drained.ConfigureAwait(false);
        // What was created meanwhile.
        await _instances.CloseAllAsync().ConfigureAwait(false);
        _instances.EndWatching();
        await _checkpoints.CloseAllAsync().ConfigureAwait(false);
        _templates.CloseAll();
        if (_data is not null)
        {
            await _data.DisposeAsync().ConfigureAwait(false);
        }

        await _context.Volumes.DisposeAsync().ConfigureAwait(false);
        await _context.Hypervisor.DisposeAsync().ConfigureAwait(false);
        _context.Telemetry.Dispose();
        _context.Rundown.Dispose();
    }
}

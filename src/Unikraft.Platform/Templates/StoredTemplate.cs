using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Templates;

/// <summary>The owner of one template. It has the identity of the instance that it was made of.</summary>
internal sealed class StoredTemplate : IInstanceSource, IKeptResource, IDisposable
{
    private readonly StoredState _state;
    private readonly InstanceOrigin? _origin;
    private readonly DateTimeOffset _convertedAt;

    /// <param name="source">The instance, as it was when it became a template.</param>
    /// <param name="snapshot">The snapshot that clones continue from, which is taken over; <see langword="null"/> for the image.</param>
    /// <param name="origin">What the instance was made from.</param>
    /// <param name="platform">The platform.</param>
    /// <param name="remove">Takes a template out of its registry; false when it is not there.</param>
    public StoredTemplate(
        CloneSource source,
        SnapshotReference? snapshot,
        InstanceOrigin? origin,
        PlatformContext platform,
        Func<StoredTemplate, bool> remove)
        : this(source, origin, platform.TimeProvider.GetUtcNow(), platform, remove)
    {
        _state.Prepare(snapshot);
        _state.Complete();
    }

    private StoredTemplate(
        CloneSource source,
        InstanceOrigin? origin,
        DateTimeOffset convertedAt,
        PlatformContext platform,
        Func<StoredTemplate, bool> remove,
        ResourceMetadata? metadata = null)
    {
        _state = new StoredState(source);
        _origin = origin;
        _convertedAt = convertedAt;
        // Giving memory back takes its time.
        Retention = new Retention(
            platform,
            "template",
            Identity,
            metadata ?? ResourceMetadata.None,
            () => remove(this),
            () => Task.Run(Dispose, CancellationToken.None));
        if (platform.Data is { } data)
        {
            Retention.Changed = () => data.Changed(this);
        }
    }

    public StateKey Key => new(StateKind.Template, Identity.Uuid);

    /// <summary>Goes on where a platform before has left off.</summary>
    public static StoredTemplate Recover(Guid uuid, TemplateRecord record, DataDirectory data, PlatformContext platform, Func<StoredTemplate, bool> remove)
    {
        CloneSource source = new(
            record.ToIdentity(uuid),
            record.Configuration.ToConfiguration(data),
            data.ReadLineage(record.Lineage),
            Machine: null,
            Snapshot: null);
        StoredTemplate template = new(source, record.Origin.ToOrigin(), record.ConvertedAt, platform, remove, record.ToMetadata());
        template._state.Recover(data.RecoverSnapshot(record.Snapshot), record.StoredBytes, pause: null, record.CloneCount);
        template.Retention.Restore(record.UnusedSince is { } since ? data.SinceServiceTime(since) : TimeSpan.Zero);
        return template;
    }

    public ResourceRecord? Save(DataDirectory data)
    {
        if (_state.IsDisposed)
        {
            return null;
        }

        (ResourceMetadata metadata, long? unusedSince) = Retention.Save();
        return new TemplateRecord
        {
            Name = Identity.Name,
            CreatedAt = Identity.CreatedAt,
            Order = Identity.Order,
            Configuration = _state.Source.Configuration.ToRecord(data),
            Lineage = data.KeepLineage(_state.Source.History),
            Tags = metadata.Tags,
            DeleteLock = metadata.DeleteLock,
            Autokill = metadata.Autokill?.Time.Ticks,
            UnusedSince = unusedSince is { } since ? data.ToServiceTime(since) : data.ServiceTime.Ticks,
            Snapshot = _state.KeptAs,
            Origin = _origin?.ToRecord(),
            ConvertedAt = _convertedAt,
            CloneCount = _state.LoadCount,
            StoredBytes = _state.StoredBytes,
        };
    }

    public Retention Retention { get; }

    public AutokillPolicy? InheritedAutokill => Retention.Metadata.Autokill;

    public ResourceIdentity Identity => _state.Source.Identity;

    public Template Describe()
    {
        ResourceMetadata metadata = Retention.Metadata;
        return new Template
        {
            Uuid = Identity.Uuid,
            Name = Identity.Name,
            CreatedAt = Identity.CreatedAt,
            ConvertedAt = _convertedAt,
            Image = _state.Source.Configuration.Image.Name,
            Vcpus = _state.Source.Configuration.Vcpus,
            MemoryMb = _state.Source.Configuration.MemoryMb,
            Args = _state.Source.Configuration.Args,
            Env = _state.Source.Configuration.Env,
            Annotations = _state.Source.Configuration.Annotations,
            Origin = _origin,
            CloneCount = _state.LoadCount,
            StoredBytes = _state.StoredBytes,
            Volumes = _state.Volumes,
            Roms = _state.Roms,
            Tags = metadata.Tags,
            DeleteLock = metadata.DeleteLock,
            Autokill = metadata.Autokill,
        };
    }

    public Blueprint Load()
    {
        InstanceOrigin origin = new(InstanceOriginKind.Template, Identity.Uuid, Identity.Name);
        return _state.TryLoad(origin, _state.Source.History, out Blueprint? blueprint)
            ? blueprint
            : throw new PlatformException(
                PlatformErrorCode.WrongState,
                $"Failed to create instance from template: template '{Identity.Name}' was deleted");
    }

    public void CountLoads(int count) => _state.CountLoads(count);

    public void Dispose()
    {
        Retention.Dispose();
        _state.Dispose();
    }
}

using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Templates;

/// <summary>The owner of one template. It has the identity of the instance that it was made of.</summary>
internal sealed class StoredTemplate : IInstanceSource, IDisposable
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
    {
        _state = new StoredState(source);
        _state.Complete(snapshot);
        _origin = origin;
        _convertedAt = platform.TimeProvider.GetUtcNow();
        // Giving memory back takes its time.
        Retention = new Retention(
            platform,
            "template",
            Identity,
            ResourceMetadata.None,
            () => remove(this),
            () => Task.Run(Dispose, CancellationToken.None));
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
            Origin = _origin,
            CloneCount = _state.LoadCount,
            StoredBytes = _state.StoredBytes,
            Volumes = _state.Volumes,
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

    public void CountLoad() => _state.CountLoad();

    public void Dispose()
    {
        Retention.Dispose();
        _state.Dispose();
    }
}

using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <content>The volumes of snapshots as files.</content>
internal sealed partial class VolumeSnapshotDirectory
{
    /// <inheritdoc cref="VolumeCatalog.DescribeArchived"/>
    public IReadOnlyList<ArchivedVolume> DescribeArchived(Guid id) => catalog.DescribeArchived(id);

    /// <inheritdoc cref="VolumeCatalog.ArchiveAsync"/>
    public Task<ArchivedVolumes> ArchiveAsync(Guid id, CancellationToken cancellationToken) => catalog.ArchiveAsync(id, cancellationToken);

    /// <inheritdoc cref="VolumeCatalog.ListUnkept"/>
    public IReadOnlyList<StoredVolume> ListOthers() => catalog.ListUnkept();

    /// <inheritdoc cref="VolumeCatalog.VerifyAsync"/>
    public Task<IReadOnlyList<DataDamage>> VerifyOthersAsync(IReadOnlyList<StoredVolume> volumes, IProgress<SnapshotProgress>? progress, Action onVerified, CancellationToken cancellationToken) =>
        catalog.VerifyAsync(volumes, progress, onVerified, cancellationToken);

    /// <inheritdoc cref="VolumeCatalog.WhenIdleAsync"/>
    public Task WhenIdleAsync() => catalog.WhenIdleAsync();

    /// <inheritdoc cref="VolumeCatalog.HasImage"/>
    public bool HasImage(ImageChecksum image, CancellationToken cancellationToken) => catalog.HasImage(image, cancellationToken);

    /// <inheritdoc cref="VolumeCatalog.ImportKept"/>
    public void ImportVolumes(Guid id, IReadOnlyList<ArchivedVolume> volumes, bool hasNoMemory, Action<ImageChecksum, Stream> copy, CancellationToken cancellationToken) =>
        catalog.ImportKept(id, volumes, hasNoMemory, copy, cancellationToken);

    /// <inheritdoc cref="VolumeCatalog.VerifyKept"/>
    public Task VerifyVolumesAsync(Guid id, bool isTrusting, IProgress<SnapshotProgress>? progress, CancellationToken cancellationToken) =>
        catalog.OwnedBy(id).Count == 0 ? Task.CompletedTask : Task.Run(() => catalog.VerifyKept(id, isTrusting, progress, cancellationToken), cancellationToken);
}

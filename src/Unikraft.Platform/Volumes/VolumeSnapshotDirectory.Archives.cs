using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <content>The volumes of snapshots as files.</content>
internal sealed partial class VolumeSnapshotDirectory
{
    /// <inheritdoc cref="VolumeCatalog.DescribeArchived"/>
    public IReadOnlyList<ArchivedVolume> DescribeArchived(Guid id) => catalog.DescribeArchived(id);

    /// <inheritdoc cref="VolumeCatalog.AreBasedElsewhere"/>
    public bool AreBasedElsewhere(Guid id) => catalog.AreBasedElsewhere(id);

    /// <inheritdoc cref="VolumeCatalog.ListUnusable"/>
    public IReadOnlyList<(Guid Volume, string Path, string Message)> ListUnusable() => catalog.ListUnusable();

    /// <inheritdoc cref="VolumeCatalog.WhenIdleAsync"/>
    public Task WhenIdleAsync() => catalog.WhenIdleAsync();

    /// <inheritdoc cref="VolumeCatalog.OpenImage"/>
    public Stream OpenImage(string name) => catalog.OpenImage(name);

    /// <inheritdoc cref="VolumeCatalog.HasImage"/>
    public bool HasImage(ImageChecksum image, CancellationToken cancellationToken) => catalog.HasImage(image, cancellationToken);

    /// <inheritdoc cref="VolumeCatalog.ImportKept"/>
    public void ImportVolumes(Guid id, IReadOnlyList<ArchivedVolume> volumes, bool hasNoMemory, Action<ImageChecksum, Stream> copy, CancellationToken cancellationToken) =>
        catalog.ImportKept(id, volumes, hasNoMemory, copy, cancellationToken);

    /// <inheritdoc cref="VolumeCatalog.VerifyKept"/>
    public Task VerifyVolumesAsync(Guid id, bool isTrusting, CancellationToken cancellationToken) =>
        catalog.OwnedBy(id).Count == 0 ? Task.CompletedTask : Task.Run(() => catalog.VerifyKept(id, isTrusting, cancellationToken), cancellationToken);
}

using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>Snapshots in files, whose volumes are kept under the same id.</summary>
internal sealed class VolumeSnapshotFiles(ISnapshotFiles inner, VolumeCatalog catalog) : ISnapshotFiles
{
    public IReadOnlyDictionary<string, string> Machine => inner.Machine;

    public string? FindIncompatibility(IReadOnlyDictionary<string, string> machine) => inner.FindIncompatibility(machine);

    public async Task<ISnapshotDirectory> OpenDirectoryAsync(string path, IDiskSpace? space = null, bool isSynced = true, CancellationToken cancellationToken = default) =>
        new VolumeSnapshotDirectory(await inner.OpenDirectoryAsync(path, space, isSynced, cancellationToken).ConfigureAwait(false), catalog);
}

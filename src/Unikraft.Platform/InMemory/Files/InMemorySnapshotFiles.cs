using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.InMemory.Files;

/// <summary>Keeps snapshots of scripted guests in files, as far as the guests can be written down.</summary>
internal sealed class InMemorySnapshotFiles(InMemoryHypervisor hypervisor) : ISnapshotFiles
{
    public Task<ISnapshotDirectory> OpenDirectoryAsync(string path, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        cancellationToken.ThrowIfCancellationRequested();
        return Task.FromResult<ISnapshotDirectory>(InMemorySnapshotDirectory.Open(
            hypervisor,
            new DataFiles(hypervisor.Files, Path.GetFullPath(path), isSynced: true)));
    }
}

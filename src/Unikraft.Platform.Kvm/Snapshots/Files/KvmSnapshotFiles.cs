using Microsoft.Extensions.Logging;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>Keeps the snapshots of KVM machines in files.</summary>
/// <param name="files">The file system.</param>
/// <param name="logger">Where to log.</param>
internal sealed class KvmSnapshotFiles(IFileSystem files, ILogger logger) : ISnapshotFiles
{
    public IReadOnlyDictionary<string, string> Machine => HostMachine.Describe();

    public string? FindIncompatibility(IReadOnlyDictionary<string, string> machine) => HostMachine.Compare(machine, HostMachine.Describe());

    public async Task<ISnapshotDirectory> OpenDirectoryAsync(string path, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        return await Task
            .Run(() => SnapshotDirectory.Open(files, Path.GetFullPath(path), logger, cancellationToken), cancellationToken)
            .ConfigureAwait(false);
    }
}

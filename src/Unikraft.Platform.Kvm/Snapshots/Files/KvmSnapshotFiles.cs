using Microsoft.Extensions.Logging;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>Keeps the snapshots of KVM machines in files.</summary>
/// <param name="files">The file system.</param>
/// <param name="logger">Where to log.</param>
/// <param name="logOptions">How snapshots are kept before they have files; <see langword="null"/> to give them files at once.</param>
internal sealed class KvmSnapshotFiles(IFileSystem files, ILogger logger, PublicationLogOptions? logOptions = null) : ISnapshotFiles
{
    public IReadOnlyDictionary<string, string> Machine => HostMachine.Describe();

    public string? FindIncompatibility(IReadOnlyDictionary<string, string> machine) => HostMachine.Compare(machine, HostMachine.Describe());

    public async Task<ISnapshotDirectory> OpenDirectoryAsync(string path, IDiskSpace? space = null, bool isSynced = true, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        IFileSystem system = isSynced ? files : new UnsyncedFileSystem(files);
        return await Task
            .Run(() => SnapshotDirectory.Open(system, Path.GetFullPath(path), logger, logOptions, space, cancellationToken), cancellationToken)
            .ConfigureAwait(false);
    }
}

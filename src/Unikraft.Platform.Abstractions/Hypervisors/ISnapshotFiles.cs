namespace Unikraft.Platform.Hypervisors;

/// <summary>An optional ability of a backend, asked for by <see cref="IHypervisor.GetFeature"/>: keeps snapshots in files.</summary>
public interface ISnapshotFiles
{
    /// <summary>
    /// Opens a directory of snapshots and holds it for this caller alone. It is made when it does not exist, in one that does. What an interrupted operation left in it is
    /// removed.
    /// </summary>
    /// <param name="path">The directory. It may have been moved or copied since it was last open.</param>
    /// <param name="cancellationToken">Cancels the opening.</param>
    /// <exception cref="ArgumentException">The path is empty.</exception>
    /// <exception cref="StorageException">The directory is open elsewhere, or the host refused.</exception>
    Task<ISnapshotDirectory> OpenDirectoryAsync(string path, CancellationToken cancellationToken = default);
}

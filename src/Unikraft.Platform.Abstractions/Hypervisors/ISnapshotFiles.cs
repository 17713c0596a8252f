namespace Unikraft.Platform.Hypervisors;

/// <summary>An optional ability of a backend, asked for by <see cref="IHypervisor.GetFeature"/>: keeps snapshots in files.</summary>
public interface ISnapshotFiles
{
    /// <summary>What snapshots taken here need of the machine that they are restored on: kind of hypervisor, version of the format, features of the CPU.</summary>
    IReadOnlyDictionary<string, string> Machine { get; }

    /// <summary>Whether snapshots can be restored here that need something of a machine.</summary>
    /// <param name="machine">What they need: <see cref="Machine"/> where they were taken.</param>
    /// <returns>What is missing here, in words; <see langword="null"/> when nothing is.</returns>
    string? FindIncompatibility(IReadOnlyDictionary<string, string> machine);

    /// <summary>
    /// Opens a directory of snapshots and holds it for this caller alone. It is made when it does not exist, in one that does. What an interrupted operation left in it is
    /// removed.
    /// </summary>
    /// <param name="path">The directory. It may have been moved or copied since it was last open.</param>
    /// <param name="space">The room on its disk, in which everything is reserved before it is written; <see langword="null"/> to write until the disk is full.</param>
    /// <param name="isSynced">
    /// Whether what is saved and deleted is on the disk before that returns. Else it is left to the host when it writes: a crash of the host may lose it, or leave files that
    /// are refused as damaged; one of the process loses nothing.
    /// </param>
    /// <param name="cancellationToken">Cancels the opening.</param>
    /// <exception cref="ArgumentException">The path is empty.</exception>
    /// <exception cref="StorageException">The directory is open elsewhere, or the host refused.</exception>
    Task<ISnapshotDirectory> OpenDirectoryAsync(string path, IDiskSpace? space = null, bool isSynced = true, CancellationToken cancellationToken = default);
}

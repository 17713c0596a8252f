using Microsoft.Win32.SafeHandles;

namespace Unikraft.Platform.Hypervisors;

/// <summary>
/// An optional ability of a backend, asked for by <see cref="IHypervisor.GetFeature"/>: takes the names in a directory to the disk, which .NET has no call for.
/// </summary>
public interface IDirectorySync
{
    /// <summary>Returns when the files that were made, renamed or removed in a directory are so after a crash of the host, too.</summary>
    /// <param name="path">The directory.</param>
    /// <exception cref="IOException">The host refused. <see cref="Exception.HResult"/> is its error number.</exception>
    void Sync(string path);

    /// <summary>
    /// Returns when what a file holds is so after a crash of the host, too, though perhaps not when it was written: what need not be written for that is not, which saves the
    /// file system a change of its own.
    /// </summary>
    /// <param name="file">The file, open for writing.</param>
    /// <exception cref="ArgumentNullException"><paramref name="file"/> is null.</exception>
    /// <exception cref="IOException">The host refused. <see cref="Exception.HResult"/> is its error number.</exception>
    void SyncContent(SafeFileHandle file) => RandomAccess.FlushToDisk(file);
}

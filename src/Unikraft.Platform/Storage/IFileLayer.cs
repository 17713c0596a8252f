namespace Unikraft.Platform.Storage;

/// <summary>
/// Every call by which a data directory, the volumes and archives touch the disk, so that tests can make each of them fail, record them, or lose what was not synced. Errors are
/// <see cref="IOException"/> with the number of the host's error as <see cref="Exception.HResult"/>.
/// </summary>
internal interface IFileLayer
{
    /// <summary>Makes a directory in one that exists; one that is there already is fine.</summary>
    void MakeDirectory(string path);

    /// <summary>The names of the files in a directory, without those of directories.</summary>
    IReadOnlyList<string> List(string directory);

    /// <summary>Makes a file, or empties the one that is there, to read and write.</summary>
    IFile Create(string path);

    /// <summary>Opens a file to read and write.</summary>
    /// <returns><see langword="null"/> when it is not there.</returns>
    IFile? Open(string path);

    /// <summary>Opens a file for one that writes, or for any number that only read. Others are refused meanwhile, in other processes too.</summary>
    /// <returns><see langword="null"/> when it is not there.</returns>
    IFile? OpenShared(string path, bool isReadOnly);

    /// <summary>Makes a file that is not there yet, to read and write. Others are refused meanwhile.</summary>
    IFile CreateNew(string path);

    /// <summary>What there is of a name.</summary>
    /// <returns><see langword="null"/> when there is nothing.</returns>
    FileStatus? Stat(string path);

    /// <summary>Opens a file, which is made if need be, and locks it until it is disposed of or the process ends.</summary>
    /// <returns><see langword="null"/> when somebody else has the lock.</returns>
    IDisposable? Lock(string path);

    /// <summary>Renames a file, in place of one that has the name already; or a directory, whose new name nothing has.</summary>
    void Rename(string from, string to);

    /// <summary>Removes a file, if it is there.</summary>
    void Delete(string path);

    /// <summary>Removes a directory and what is in it.</summary>
    void DeleteDirectory(string path);

    /// <summary>Returns when the names in a directory are on the disk.</summary>
    void SyncDirectory(string path);

    /// <summary>The bytes that can still be written to the file system of a directory.</summary>
    long FreeBytes(string directory);
}

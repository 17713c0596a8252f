using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>The files of a directory: read completely, published completely or not at all.</summary>
/// <param name="files">The file system.</param>
/// <param name="path">The directory.</param>
internal sealed class FileStore(IFileSystem files, string path)
{
    /// <summary>What the name of a file ends with while it is written.</summary>
    internal const string TemporarySuffix = ".tmp";

    internal string Directory => path;

    internal string PathOf(string name) => Path.Combine(path, name);

    /// <summary>Makes the directory, if it is not there.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal void MakeDirectory()
    {
        int result = files.MakeDirectory(path);
        if (result != -Libc.ErrnoExists)
        {
            StoredFile.Check(result, "Making", path);
        }

        // Also of one that is there: whoever made it may have ended before that.
        SyncDirectory(Path.GetDirectoryName(path) ?? path);
    }

    /// <summary>The names of the files that are there.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal IReadOnlyList<string> List()
    {
        List<string> names = [];
        StoredFile.Check(files.List(path, names), "Listing", path);
        return names;
    }

    /// <summary>Takes a lock that ends with the process at the latest.</summary>
    /// <param name="name">The name of the file that stands for it.</param>
    /// <exception cref="StorageException">Somebody else has it, or the host refused.</exception>
    internal DescriptorHandle Lock(string name)
    {
        int result = files.OpenLocked(PathOf(name), out DescriptorHandle file);
        if (result == -Libc.ErrnoAgain)
        {
            throw new StorageException(
                path,
                $"The directory '{path}' is open elsewhere, in this process or in another one. Close it there, or use a directory of your own.");
        }

        Check(result, "Locking", name);
        return file;
    }

    /// <summary>Begins to publish files.</summary>
    internal Publication BeginPublishing() => new(files, this);

    /// <summary>Makes a file, or empties the one that is there, to write to.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal StoredFile Create(string name)
    {
        Check(files.Create(PathOf(name), out DescriptorHandle file), "Making", name);
        return new StoredFile(files, file, PathOf(name));
    }

    /// <summary>Renames a file, in place of one that has the name already.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal void Rename(string from, string to) => Check(files.Rename(PathOf(from), PathOf(to)), "Publishing", to);

    /// <summary>The names of the files in another directory.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal IReadOnlyList<string> ListOf(string directory)
    {
        List<string> names = [];
        StoredFile.Check(files.List(directory, names), "Listing", directory);
        return names;
    }

    /// <summary>Takes a file from another directory of the same file system, unless one of that name is here.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal void Take(string name, string from)
    {
        using StoredFile? present = TryOpen(name);
        if (present is null)
        {
            Check(files.Rename(Path.Combine(from, name), PathOf(name)), "Publishing", name);
        }
    }

    /// <returns>The file, to read; <see langword="null"/> when it is not there.</returns>
    internal StoredFile? TryOpen(string name) => Opened(name, files.OpenRead(PathOf(name), out DescriptorHandle file), file);

    /// <returns>The file, to write and read in whole blocks; <see langword="null"/> when it is not there.</returns>
    internal StoredFile? TryOpenDirect(string name) => Opened(name, files.OpenDirect(PathOf(name), out DescriptorHandle file), file);

    private StoredFile? Opened(string name, int result, DescriptorHandle file)
    {
        if (result == -Libc.ErrnoNoEntry)
        {
            return null;
        }

        Check(result, "Opening", name);
        return new StoredFile(files, file, PathOf(name));
    }

    /// <summary>Removes a file, if it is there.</summary>
    internal void Delete(string name)
    {
        int result = files.Delete(PathOf(name));
        if (result != -Libc.ErrnoNoEntry)
        {
            Check(result, "Deleting", name);
        }
    }

    /// <summary>Removes a file that can be removed at the next opening as well.</summary>
    internal void DeleteIfPossible(string name) => _ = files.Delete(PathOf(name));

    /// <summary>Returns when what was published and deleted is on the disk.</summary>
    internal void Sync() => SyncDirectory(path);

    private void SyncDirectory(string directory)
    {
        int result;
        do
        {
            result = files.SyncDirectory(directory);
        }
        while (result == -Libc.ErrnoInterrupted);
        StoredFile.Check(result, "Writing", directory);
    }

    private void Check(int result, string operation, string name) => StoredFile.Check(result, operation, PathOf(name));
}

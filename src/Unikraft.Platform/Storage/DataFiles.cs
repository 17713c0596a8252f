namespace Unikraft.Platform.Storage;

/// <summary>The files of a data directory: read completely, published completely or not at all, with errors that name them.</summary>
/// <param name="layer">The file system.</param>
/// <param name="root">The data directory. Names are relative to it.</param>
/// <param name="isSynced">Whether what is published survives a crash of the host, and not only of the process.</param>
internal sealed class DataFiles(IFileLayer layer, string root, bool isSynced)
{
    /// <summary>What the name of a file ends with while it is written.</summary>
    internal const string TemporarySuffix = ".tmp";

    // Linux' numbers, which .NET passes on as HResult.
    private const int Interrupted = 4;
    private const int InputOutput = 5;
    private const int NoSpaceLeft = 28;
    private const int FileTooBig = 27;
    private const int QuotaExceeded = 122;

    internal string Root => root;

    /// <summary>Whether it is not left to the host when something is on the disk.</summary>
    internal bool IsSynced => isSynced;

    /// <summary>The same files, for what has to survive a crash of the host however durable the rest is.</summary>
    internal DataFiles Durable => isSynced ? this : new DataFiles(layer, root, isSynced: true);

    /// <summary>Whether the disk has lost what was to be read, which is damage; other errors are the host's, and may be over at the next attempt.</summary>
    internal static bool IsUnreadable(StorageException error) => error.HResult == InputOutput;

    internal IFileLayer Layer => layer;

    internal string PathOf(string name) => Path.Combine(root, name);

    /// <summary>Makes a directory, and those above it that are not there. The name of each is taken to the disk, by the directory that has it.</summary>
    internal void MakeDirectory(string name)
    {
        List<string> levels = [Path.TrimEndingDirectorySeparator(PathOf(name))];
        while (Path.GetDirectoryName(levels[^1]) is { Length: > 0 } parent && Stat(parent) is null)
        {
            levels.Add(parent);
        }

        foreach (string path in levels.AsEnumerable().Reverse())
        {
            Run("Making", path, layer.MakeDirectory);
            SyncDirectory(Path.GetDirectoryName(path) ?? path);
        }
    }

    internal IReadOnlyList<string> List(string directory) => Run("Listing", directory, layer.List);

    /// <returns><see langword="null"/> when somebody else has it.</returns>
    internal IDisposable? TryLock(string name) => Run("Locking", name, layer.Lock);

    internal long FreeBytes() => Run("Measuring", "", layer.FreeBytes);

    /// <summary>Reads a whole file.</summary>
    /// <returns><see langword="null"/> when it is not there.</returns>
    /// <exception cref="StorageException">The host refused.</exception>
    internal byte[]? TryRead(string name)
    {
        using IFile? file = Run("Opening", name, layer.Open);
        if (file is null)
        {
            return null;
        }

        long length = Run("Reading", name, _ => file.Length);
        if (length > Array.MaxLength)
        {
            throw new StorageException(PathOf(name), $"'{PathOf(name)}' cannot be read: {length} bytes are more than it can have. Put a sound copy of it there.");
        }

        byte[] content = new byte[length];
        return content.AsSpan(0, Read(name, file, 0, content)).ToArray();
    }

    /// <summary>Opens a file to read and write.</summary>
    /// <returns><see langword="null"/> when it is not there.</returns>
    internal IFile? TryOpen(string name) => Run("Opening", name, layer.Open);

    internal IFile Create(string name) => Run("Making", name, layer.Create);

    /// <summary>Makes a file that is not there yet.</summary>
    internal IFile CreateNew(string name) => Run("Making", name, layer.CreateNew);

    /// <summary>Opens a file that others may read meanwhile and nobody may write, to read it.</summary>
    /// <returns><see langword="null"/> when it is not there.</returns>
    internal IFile? TryOpenToRead(string name) => Run("Opening", name, path => layer.OpenShared(path, isReadOnly: true));

    /// <summary>What there is of a name.</summary>
    internal FileStatus? Stat(string name) => Run("Looking at", name, layer.Stat);

    /// <returns>How many bytes were read: fewer than asked for only at the end of the file.</returns>
    internal int Read(string name, IFile file, long offset, Memory<byte> buffer)
    {
        int done = 0;
        while (done < buffer.Length)
        {
            int read = Run("Reading", name, _ => file.Read(offset + done, buffer.Span[done..]));
            if (read == 0)
            {
                break;
            }

            done += read;
        }

        return done;
    }

    internal void Write(string name, IFile file, long offset, ReadOnlyMemory<byte> data)
    {
        while (!data.IsEmpty)
        {
            int written = Run("Writing", name, _ => file.Write(offset, data.Span));
            if (written == 0)
            {
                // A write of nothing would be tried for ever.
                throw new StorageException(PathOf(name), $"Writing '{PathOf(name)}' failed: the host wrote nothing. Look at its log.");
            }

            offset += written;
            data = data[written..];
        }
    }

    internal void SetLength(string name, IFile file, long length) => Run("Resizing", name, _ => file.SetLength(length));

    internal void Sync(string name, IFile file)
    {
        if (isSynced)
        {
            Run("Syncing", name, _ => file.Sync());
        }
    }

    /// <summary>Writes a file under another name, and gives it its own when it is on the disk. After a failure it has that or not, and nobody knows whether it keeps it.</summary>
    /// <param name="name">The name. A file that has it is replaced.</param>
    /// <param name="write">Writes the file.</param>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void Publish(string name, Action<Appender> write)
    {
        string temporary = name + TemporarySuffix;
        try
        {
            using (IFile file = Create(temporary))
            {
                write(new Appender(this, temporary, file));
                Sync(temporary, file);
            }

            Run("Publishing", name, path => layer.Rename(PathOf(temporary), path));
            SyncDirectory(Path.GetDirectoryName(PathOf(name))!);
        }
        catch
        {
            DeleteIfPossible(temporary);
            throw;
        }
    }

    internal void Publish(string name, ReadOnlyMemory<byte> content) => Publish(name, file => file.Append(content));

    internal void Rename(string from, string to) => Run("Renaming", from, path => layer.Rename(path, PathOf(to)));

    internal void Delete(string name) => Run("Deleting", name, layer.Delete);

    internal void DeleteDirectory(string name) => Run("Deleting", name, layer.DeleteDirectory);

    /// <summary>Removes what can be collected at the next start as well.</summary>
    internal void DeleteIfPossible(string name)
    {
        try
        {
            Delete(name);
        }
        catch (StorageException)
        {
            // Collected at the next start.
        }
    }

    internal void SyncDirectory(string directory)
    {
        if (isSynced)
        {
            Run("Syncing", directory, layer.SyncDirectory);
        }
    }

    private void Run(string operation, string name, Action<string> call) => Run(operation, name, path =>
    {
        call(path);
        return true;
    });

    private T Run<T>(string operation, string name, Func<string, T> call)
    {
        string path = PathOf(name);
        while (true)
        {
            try
            {
                return call(path);
            }
            catch (IOException error) when (error.HResult == Interrupted)
            {
                // A signal came in between; nothing was done.
            }
            catch (Exception error) when (error is IOException or UnauthorizedAccessException)
            {
                bool isFull = error.HResult is NoSpaceLeft or QuotaExceeded or FileTooBig;
                string advice = isFull ? " Free some space and try again." : "";
                throw new StorageException(path, $"{operation} '{path}' failed: {error.Message}{advice}", isFull) { HResult = error.HResult };
            }
        }
    }

    /// <summary>Writes one file from its beginning to its end.</summary>
    internal sealed class Appender(DataFiles files, string name, IFile file)
    {
        internal long Length { get; private set; }

        internal void Append(ReadOnlyMemory<byte> data)
        {
            files.Write(name, file, Length, data);
            Length += data.Length;
        }
    }
}

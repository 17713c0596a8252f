namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>
/// Files that are published together. All are written under other names, taken to the disk with these in one go, and given their own then: a power cut finds them whole,
/// under the one name or the other, or finds nothing that anybody was told of.
/// </summary>
/// <param name="files">The file system.</param>
/// <param name="store">The directory.</param>
internal sealed class Publication(IFileSystem files, FileStore store) : IDisposable
{
    private readonly List<(string Name, StoredFile File)> _written = [];
    private int _published;

    /// <summary>Writes a file. One that has its name already is replaced when all are published.</summary>
    /// <param name="name">The name that it is to get.</param>
    /// <param name="write">Writes it.</param>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void Write(string name, Action<StoredFile> write)
    {
        StoredFile file = store.Create(name + FileStore.TemporarySuffix);
        _written.Add((name, file));
        write(file);
        file.WriteBack(isAwaited: false);
    }

    /// <summary>Takes the files to the disk and gives them their names, in the order in which they were written.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused. Those that have got their names have them.</exception>
    internal void Publish()
    {
        // When the first is synced the others have nothing more to be written, and go with it in one change of the file system.
        foreach ((_, StoredFile file) in _written.Skip(1))
        {
            file.WriteBack(isAwaited: true);
        }

        foreach ((_, StoredFile file) in _written)
        {
            file.Sync();
        }

        store.Sync();
        foreach ((string name, StoredFile file) in _written)
        {
            file.Dispose();
            store.Rename(name + FileStore.TemporarySuffix, name);
            _published++;
        }
    }

    public void Dispose()
    {
        foreach ((_, StoredFile file) in _written)
        {
            file.Dispose();
        }

        foreach ((string name, _) in _written.Skip(_published))
        {
            // What cannot be removed now is removed when the directory is next opened.
            _ = files.Delete(store.PathOf(name + FileStore.TemporarySuffix));
        }
    }
}

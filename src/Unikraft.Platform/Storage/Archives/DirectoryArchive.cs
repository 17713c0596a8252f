namespace Unikraft.Platform.Storage.Archives;

/// <summary>An archive in a directory.</summary>
internal sealed class DirectoryArchive(DataFiles files) : IArchiveReader
{
    // A link could lead to any file of the host, a device to no end.
    public Stream? Open(string name) =>
        files.Stat(name) is { IsPlain: true } && files.TryOpenToRead(name) is { } file ? new StoredStream(files, name, file) : null;

    public void Dispose()
    {
        // Nothing is held open.
    }
}

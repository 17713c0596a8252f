namespace Unikraft.Platform.Storage.Archives;

/// <summary>An archive in a directory.</summary>
internal sealed class DirectoryArchive(string path) : IArchiveReader
{
    public Stream? Open(string name)
    {
        FileInfo file = new(Path.Combine(path, name));
        // A link could lead to any file of the host, a device to no end.
        return file.Exists && file.LinkTarget is null && !file.Attributes.HasFlag(FileAttributes.Device) ? file.OpenRead() : null;
    }

    public void Dispose()
    {
        // Nothing is held open.
    }
}

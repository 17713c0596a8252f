using Unikraft.Platform.Storage;

namespace Unikraft.Platform.CrashChild;

/// <summary>The file system of the host, on a disk that cannot read some files.</summary>
internal sealed class UnreadableFileLayer(IFileLayer host, UnreadableFiles unreadable) : IFileLayer
{
    public void MakeDirectory(string path) => host.MakeDirectory(path);

    public IReadOnlyList<string> List(string directory) => host.List(directory);

    public IFile Create(string path)
    {
        unreadable.Replaced(path);
        return host.Create(path);
    }

    public IFile? Open(string path) => Wrap(path, host.Open(path));

    public IFile? OpenShared(string path, bool isReadOnly) => Wrap(path, host.OpenShared(path, isReadOnly));

    public IFile CreateNew(string path) => host.CreateNew(path);

    public FileStatus? Stat(string path) => host.Stat(path);

    public IDisposable? Lock(string path) => host.Lock(path);

    public void Rename(string from, string to)
    {
        host.Rename(from, to);
        unreadable.Renamed(from, to);
    }

    public void Delete(string path)
    {
        host.Delete(path);
        unreadable.Replaced(path);
    }

    public void DeleteDirectory(string path) => host.DeleteDirectory(path);

    public void SyncDirectory(string path) => host.SyncDirectory(path);

    public long FreeBytes(string directory) => host.FreeBytes(directory);

    private IFile? Wrap(string path, IFile? file) => file is not null && unreadable.Has(path) ? new UnreadableFile(file) : file;

    private sealed class UnreadableFile(IFile file) : IFile
    {
        public long Length => file.Length;

        public int Read(long offset, Span<byte> buffer) => throw new IOException("Input/output error", UnreadableFiles.InputOutput);

        public int Write(long offset, ReadOnlySpan<byte> data) => file.Write(offset, data);

        public void SetLength(long length) => file.SetLength(length);

        public void Sync() => file.Sync();

        public void Dispose() => file.Dispose();
    }
}

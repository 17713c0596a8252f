using System.Collections.Concurrent;
using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Storage;

/// <summary>The file system of the host.</summary>
/// <param name="directories">
/// Syncs directories, which .NET cannot. Without it a renamed file is synced under its new name, which takes the name to the disk on ext4, xfs and btrfs.
/// </param>
internal sealed class HostFileLayer(IDirectorySync? directories) : IFileLayer
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    // Linux' number for a lock that somebody else has.
    private const int WouldBlock = 11;

    private readonly ConcurrentDictionary<string, string> _renamed = new(StringComparer.Ordinal);

    public void MakeDirectory(string path)
    {
        // Guest memory and environments may hold secrets.
        if (OperatingSystem.IsWindows())
        {
            Directory.CreateDirectory(path);
        }
        else
        {
            Directory.CreateDirectory(path, OwnerOnly | UnixFileMode.UserExecute);
        }
    }

    public IReadOnlyList<string> List(string directory) => [.. Directory.EnumerateFiles(directory).Select(static path => Path.GetFileName(path))];

    public IFile Create(string path)
    {
        FileStreamOptions options = new() { Mode = FileMode.Create, Access = FileAccess.ReadWrite, Share = Sharing, BufferSize = 0 };
        if (!OperatingSystem.IsWindows())
        {
            options.UnixCreateMode = OwnerOnly;
        }

        return new HostFile(path, options, directories);
    }

    public IFile? Open(string path)
    {
        try
        {
            return new HostFile(path, new() { Mode = FileMode.Open, Access = FileAccess.ReadWrite, Share = Sharing, BufferSize = 0 }, directories);
        }
        catch (FileNotFoundException)
        {
            return null;
        }
    }

    public IDisposable? Lock(string path)
    {
        try
        {
            return File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException error) when (error.HResult == WouldBlock)
        {
            return null;
        }
    }

    public void Rename(string from, string to)
    {
        File.Move(from, to, overwrite: true);
        if (directories is null)
        {
            _renamed[Path.GetDirectoryName(to)!] = to;
        }
    }

    public void Delete(string path) => File.Delete(path);

    public void SyncDirectory(string path)
    {
        if (directories is not null)
        {
            directories.Sync(path);
        }
        else if (_renamed.TryRemove(path, out string? renamed))
        {
            try
            {
                using SafeFileHandle file = File.OpenHandle(renamed);
                RandomAccess.FlushToDisk(file);
            }
            catch (FileNotFoundException)
            {
                // Removed since: there is no name to take to the disk.
            }
        }
    }

    public long FreeBytes(string directory) => new DriveInfo(directory).AvailableFreeSpace;

    private const FileShare Sharing = FileShare.ReadWrite | FileShare.Delete;

    private sealed class HostFile(string path, FileStreamOptions options, IDirectorySync? syncs) : IFile
    {
        private readonly FileStream _file = new(path, options);

        public long Length => RandomAccess.GetLength(_file.SafeFileHandle);

        public int Read(long offset, Span<byte> buffer) => RandomAccess.Read(_file.SafeFileHandle, buffer, offset);

        public int Write(long offset, ReadOnlySpan<byte> data)
        {
            RandomAccess.Write(_file.SafeFileHandle, data, offset);
            return data.Length;
        }

        public void Sync()
        {
            if (syncs is null)
            {
                RandomAccess.FlushToDisk(_file.SafeFileHandle);
            }
            else
            {
                // The journal of the metadata is written over: nothing of the file system changes but a time, for which it would write a journal of its own.
                syncs.SyncContent(_file.SafeFileHandle);
            }
        }

        public void Dispose() => _file.Dispose();
    }
}

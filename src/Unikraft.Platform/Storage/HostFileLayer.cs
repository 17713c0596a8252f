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

    /// <summary>One that does not sync directories.</summary>
    internal static readonly HostFileLayer Default = new(directories: null);

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

        FileStream file = new(path, options);
        return new HostFile(file.SafeFileHandle, file, directories);
    }

    public IFile? Open(string path)
    {
        try
        {
            SafeFileHandle file = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, Sharing);
            return new HostFile(file, file, directories);
        }
        catch (FileNotFoundException)
        {
            return null;
        }
    }

    public IFile? OpenShared(string path, bool isReadOnly)
    {
        try
        {
            SafeFileHandle file = File.OpenHandle(
                path,
                FileMode.Open,
                isReadOnly ? FileAccess.Read : FileAccess.ReadWrite,
                isReadOnly ? FileShare.Read : FileShare.None);

            // These grow, and are synced with their length.
            return new HostFile(file, file, syncs: null);
        }
        catch (IOException error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    public IFile CreateNew(string path)
    {
        SafeFileHandle file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None);
        return new HostFile(file, file, syncs: null);
    }

    public FileStatus? Stat(string path)
    {
        FileInfo file = new(path);
        return file.Exists
            ? new FileStatus(IsDirectory: false, file.LinkTarget is null && !file.Attributes.HasFlag(FileAttributes.Device), file.Length, file.LastWriteTimeUtc)
            : Directory.Exists(path) ? new FileStatus(IsDirectory: true, IsPlain: false, Length: 0, default)
            : null;
    }

    public IDisposable? Lock(string path)
    {
        SafeFileHandle held;
        try
        {
            held = File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException error) when (error.HResult == WouldBlock)
        {
            return null;
        }

        try
        {
            // .NET takes no lock where that is switched off, or where the file system has none, and says nothing.
            File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None).Dispose();
        }
        catch (IOException)
        {
            return held;
        }

        held.Dispose();
        throw new IOException(
            "files are not locked here, so two platforms could write to one directory. Choose a file system that has locks, or unset DOTNET_SYSTEM_IO_DISABLEFILELOCKING if that is set.");
    }

    public void Rename(string from, string to)
    {
        if (Directory.Exists(from))
        {
            Directory.Move(from, to);
            return;
        }

        File.Move(from, to, overwrite: true);
        if (directories is null)
        {
            _renamed[Path.GetDirectoryName(to)!] = to;
        }
    }

    public void Delete(string path) => File.Delete(path);

    public void DeleteDirectory(string path) => Directory.Delete(path, recursive: true);

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

    private sealed class HostFile(SafeFileHandle file, IDisposable owner, IDirectorySync? syncs) : IFile
    {
        public long Length => RandomAccess.GetLength(file);

        public int Read(long offset, Span<byte> buffer) => RandomAccess.Read(file, buffer, offset);

        public int Write(long offset, ReadOnlySpan<byte> data)
        {
            RandomAccess.Write(file, data, offset);
            return data.Length;
        }

        public void SetLength(long length) => RandomAccess.SetLength(file, length);

        public void Sync()
        {
            if (syncs is null)
            {
                RandomAccess.FlushToDisk(file);
            }
            else
            {
                // The journal of the metadata is written over: nothing of the file system changes but a time, for which it would write a journal of its own.
                syncs.SyncContent(file);
            }
        }

        public void Dispose() => owner.Dispose();
    }
}

using System.Globalization;
using Microsoft.Win32.SafeHandles;

namespace Unikraft.Platform.Volumes;

/// <summary>A file of the host.</summary>
internal sealed class ImageFile : IImageFile
{
    // Linux' numbers, which .NET passes on as HResult.
    private const int NoSpaceLeft = 28;
    private const int FileTooBig = 27;
    private const int QuotaExceeded = 122;

    private readonly SafeFileHandle _handle;

    private ImageFile(string path, SafeFileHandle handle, bool isReadOnly)
    {
        Path = path;
        IsReadOnly = isReadOnly;
        _handle = handle;
    }

    public string Path { get; }

    public bool IsReadOnly { get; }

    public long Length
    {
        get
        {
            try
            {
                return RandomAccess.GetLength(_handle);
            }
            catch (IOException error)
            {
                throw Failure("read the length of", error);
            }
        }
    }

    public void Dispose() => _handle.Dispose();

    public int Read(long offset, Span<byte> buffer)
    {
        try
        {
            int done = 0;
            while (done < buffer.Length)
            {
                int count = RandomAccess.Read(_handle, buffer[done..], offset + done);
                if (count == 0)
                {
                    break;
                }

                done += count;
            }

            return done;
        }
        catch (IOException error)
        {
            throw Failure("read", error);
        }
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        try
        {
            RandomAccess.Write(_handle, data, offset);
        }
        catch (IOException error)
        {
            throw Failure("write", error);
        }
    }

    public void SetLength(long length)
    {
        try
        {
            RandomAccess.SetLength(_handle, length);
        }
        catch (IOException error)
        {
            throw Failure("resize", error);
        }
    }

    public void Flush()
    {
        try
        {
            RandomAccess.FlushToDisk(_handle);
        }
        catch (IOException error)
        {
            throw Failure("flush", error);
        }
    }

    /// <summary>Opens a file that exists. One writer excludes everybody else, other processes that use this library included.</summary>
    /// <exception cref="DiskImageException">There is no such file, it is in use, or it may not be opened.</exception>
    internal static ImageFile Open(string path, bool isReadOnly) => Open(path, isReadOnly, FileMode.Open);

    /// <summary>Creates a file that does not exist yet.</summary>
    /// <exception cref="DiskImageException">There is such a file, or it may not be created.</exception>
    internal static ImageFile Create(string path) => Open(path, isReadOnly: false, FileMode.CreateNew);

    private static ImageFile Open(string path, bool isReadOnly, FileMode mode)
    {
        try
        {
            SafeFileHandle handle = File.OpenHandle(
                path,
                mode,
                isReadOnly ? FileAccess.Read : FileAccess.ReadWrite,
                isReadOnly ? FileShare.Read : FileShare.None);
            return new ImageFile(path, handle, isReadOnly);
        }
        catch (IOException error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new DiskImageException(DiskImageError.Unreadable, path, $"There is no disk image '{path}'.", error);
        }
        catch (IOException error) when (mode == FileMode.CreateNew && Exists(path))
        {
            throw new DiskImageException(
                DiskImageError.InUse,
                path,
                $"The disk image '{path}' cannot be created: there is a file of that name. Choose another name or remove it.",
                error);
        }
        catch (IOException error) when (mode == FileMode.Open && Exists(path))
        {
            throw new DiskImageException(
                DiskImageError.InUse,
                path,
                $"The disk image '{path}' is in use, or cannot be opened: {error.Message} Close it elsewhere and try again.",
                error);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or NotSupportedException or ArgumentException)
        {
            throw new DiskImageException(DiskImageError.Unreadable, path, $"The disk image '{path}' cannot be opened: {error.Message}", error);
        }
    }

    /// <summary>Whether the host has failed because there is no room.</summary>
    internal static bool IsFull(Exception error) => error.HResult is NoSpaceLeft or QuotaExceeded or FileTooBig;

    private static bool Exists(string path) => File.Exists(path) || Directory.Exists(path);

    private BlockDeviceException Failure(string what, IOException error) => IsFull(error)
        ? new BlockDeviceException(
            BlockDeviceError.NoSpace,
            Path,
            $"There is no room to {what} '{Path}'. Free some space on its file system and try again.",
            error)
        : new BlockDeviceException(
            BlockDeviceError.InputOutput,
            Path,
            string.Create(CultureInfo.InvariantCulture, $"The host cannot {what} '{Path}': {error.Message}"),
            error);
}

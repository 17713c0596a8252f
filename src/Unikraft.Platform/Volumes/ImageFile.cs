using System.Globalization;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Volumes;

/// <summary>A file of the host.</summary>
internal sealed class ImageFile : IImageFile
{
    // Linux' numbers, which .NET passes on as HResult.
    private const int Interrupted = 4;
    private const int NoSpaceLeft = 28;
    private const int FileTooBig = 27;
    private const int QuotaExceeded = 122;

    private readonly IFile _file;

    private ImageFile(string path, IFile file, bool isReadOnly)
    {
        Path = path;
        IsReadOnly = isReadOnly;
        _file = file;
    }

    public string Path { get; }

    public bool IsReadOnly { get; }

    public long Length
    {
        get
        {
            try
            {
                return _file.Length;
            }
            catch (IOException error)
            {
                throw Failure("read the length of", error);
            }
        }
    }

    public void Dispose() => _file.Dispose();

    public int Read(long offset, Span<byte> buffer)
    {
        int done = 0;
        while (done < buffer.Length)
        {
            try
            {
                int count = _file.Read(offset + done, buffer[done..]);
                if (count == 0)
                {
                    break;
                }

                done += count;
            }
            catch (IOException error) when (error.HResult == Interrupted)
            {
                // A signal came in between; nothing was done.
            }
            catch (IOException error)
            {
                throw Failure("read", error);
            }
        }

        return done;
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        while (!data.IsEmpty)
        {
            try
            {
                int count = _file.Write(offset, data);
                if (count == 0)
                {
                    // A write of nothing would be tried for ever.
                    throw Failure("write", new IOException("it wrote nothing."));
                }

                offset += count;
                data = data[count..];
            }
            catch (IOException error) when (error.HResult == Interrupted)
            {
                // A signal came in between; nothing was done.
            }
            catch (IOException error)
            {
                throw Failure("write", error);
            }
        }
    }

    public void SetLength(long length) => Repeat("resize", () => _file.SetLength(length));

    public void Flush() => Repeat("flush", _file.Sync);

    /// <summary>Opens a file that exists. One writer excludes everybody else, other processes that use this library included.</summary>
    /// <param name="path">The file.</param>
    /// <param name="isReadOnly">Whether it is only read.</param>
    /// <param name="files">The file system; that of the host when <see langword="null"/>.</param>
    /// <exception cref="DiskImageException">There is no such file, it is in use, or it may not be opened.</exception>
    internal static ImageFile Open(string path, bool isReadOnly, IFileLayer? files = null) =>
        Open(path, isReadOnly, mustBeNew: false, files ?? HostFileLayer.Default);

    /// <summary>Creates a file that does not exist yet.</summary>
    /// <param name="path">The file.</param>
    /// <param name="files">The file system; that of the host when <see langword="null"/>.</param>
    /// <exception cref="DiskImageException">There is such a file, or it may not be created.</exception>
    internal static ImageFile Create(string path, IFileLayer? files = null) =>
        Open(path, isReadOnly: false, mustBeNew: true, files ?? HostFileLayer.Default);

    /// <summary>Removes a file that nobody knows of, which goes at the next start if that cannot be.</summary>
    internal static void Discard(string path, IFileLayer files)
    {
        try
        {
            files.Delete(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // What led here is what matters.
        }
    }

    private static ImageFile Open(string path, bool isReadOnly, bool mustBeNew, IFileLayer files)
    {
        while (true)
        {
            try
            {
                IFile? file = mustBeNew ? files.CreateNew(path) : files.OpenShared(path, isReadOnly);
                return file is null
                    ? throw new DiskImageException(DiskImageError.Unreadable, path, $"There is no disk image '{path}'.")
                    : new ImageFile(path, file, isReadOnly);
            }
            catch (IOException error) when (error.HResult == Interrupted)
            {
                // A signal came in between; nothing was done.
            }
            catch (IOException error)
            {
                throw Exists(path, files)
                    ? new DiskImageException(
                        DiskImageError.InUse,
                        path,
                        mustBeNew
                            ? $"The disk image '{path}' cannot be created: there is a file of that name. Choose another name or remove it."
                            : $"The disk image '{path}' is in use, or cannot be opened: {error.Message} Close it elsewhere and try again.",
                        error)
                    : Unreadable(path, error);
            }
            catch (Exception error) when (error is UnauthorizedAccessException or NotSupportedException or ArgumentException)
            {
                throw Unreadable(path, error);
            }
        }
    }

    private static DiskImageException Unreadable(string path, Exception error) =>
        new(DiskImageError.Unreadable, path, $"The disk image '{path}' cannot be opened: {error.Message}", error);

    /// <summary>Whether the host has failed because there is no room.</summary>
    internal static bool IsFull(Exception error) => error.HResult is NoSpaceLeft or QuotaExceeded or FileTooBig;

    private static bool Exists(string path, IFileLayer files)
    {
        try
        {
            return files.Stat(path) is not null;
        }
        catch (IOException)
        {
            // It is as unreadable as it was.
            return false;
        }
    }

    private void Repeat(string what, Action call)
    {
        while (true)
        {
            try
            {
                call();
                return;
            }
            catch (IOException error) when (error.HResult == Interrupted)
            {
                // A signal came in between; nothing was done.
            }
            catch (IOException error)
            {
                throw Failure(what, error);
            }
        }
    }

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

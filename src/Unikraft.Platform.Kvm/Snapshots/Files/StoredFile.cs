using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>An open file, read and written completely or with an error that names it.</summary>
/// <param name="files">The file system.</param>
/// <param name="descriptor">The file, which is taken over.</param>
/// <param name="path">Its name, for errors.</param>
internal sealed class StoredFile(IFileSystem files, DescriptorHandle descriptor, string path) : IDisposable
{
    private DescriptorHandle? _descriptor = descriptor;

    /// <summary>The number of bytes that were written.</summary>
    internal long Written { get; private set; }

    private DescriptorHandle Descriptor => _descriptor ?? throw new ObjectDisposedException(path);

    /// <exception cref="StorageException">The call failed.</exception>
    internal static void Check(int result, string operation, string path)
    {
        if (result >= 0)
        {
            return;
        }

        bool isFull = -result is Libc.ErrnoNoSpace or Libc.ErrnoQuota;
        string advice = isFull ? " Free some space and try again." : "";
        throw new StorageException(
            path,
            $"{operation} '{path}' failed: {Marshal.GetPInvokeErrorMessage(-result)} (errno {-result}).{advice}",
            isFull)
        {
            HResult = -result,
        };
    }

    /// <summary>Whether the disk has lost what was to be read, which is damage; other errors are the host's, and may be over at the next attempt.</summary>
    internal static bool IsUnreadable(StorageException error) => error.HResult == Libc.ErrnoInputOutput;

    internal FileStamp Stat()
    {
        Check(files.Stat(Descriptor, out FileStamp stamp), "Reading", path);
        return stamp;
    }

    /// <summary>Fills a buffer.</summary>
    /// <exception cref="FileDamageException">The file ends before.</exception>
    /// <exception cref="StorageException">The host refused.</exception>
    internal void Read(Span<byte> buffer, long offset)
    {
        int done = 0;
        while (done < buffer.Length)
        {
            int read = files.Read(Descriptor, buffer[done..], offset + done);
            if (read == 0)
            {
                throw FileDamageException.Damaged($"ends at byte {offset + done}, where it should go on");
            }

            done += CheckPart(read, "Reading");
        }
    }

    /// <summary>Writes behind what was written before.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void Append(ReadOnlySpan<byte> buffer)
    {
        Write(buffer, Written);
        Written += buffer.Length;
    }

    /// <summary>Writes over a part of the file.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void Write(ReadOnlySpan<byte> buffer, long offset)
    {
        while (!buffer.IsEmpty)
        {
            int written = files.Write(Descriptor, buffer, offset);

            // A write of nothing would be tried for ever.
            int part = CheckPart(written == 0 ? -Libc.ErrnoInputOutput : written, "Writing");
            buffer = buffer[part..];
            offset += part;
        }
    }

    /// <summary>Has the host begin to write to the disk what was written, or waits until it has: <see cref="Sync"/> has less to do then.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void WriteBack(bool isAwaited)
    {
        int result;
        do
        {
            result = files.WriteBack(Descriptor, isAwaited);
        }
        while (result == -Libc.ErrnoInterrupted);
        Check(result, "Writing", path);
    }

    /// <summary>Returns when everything is on the disk. A failed attempt is not repeated: the kernel may have dropped what it could not write.</summary>
    internal void Sync()
    {
        int result;
        do
        {
            result = files.Sync(Descriptor);
        }
        while (result == -Libc.ErrnoInterrupted);
        Check(result, "Writing", path);
    }

    /// <summary>The same, but for times that were changed by it.</summary>
    internal void SyncData()
    {
        int result;
        do
        {
            result = files.SyncData(Descriptor);
        }
        while (result == -Libc.ErrnoInterrupted);
        Check(result, "Writing", path);
    }

    /// <summary>Gives the descriptor to somebody else.</summary>
    internal DescriptorHandle Detach()
    {
        DescriptorHandle detached = Descriptor;
        _descriptor = null;
        return detached;
    }

    public void Dispose()
    {
        _descriptor?.Dispose();
        _descriptor = null;
    }

    private int CheckPart(int result, string operation)
    {
        if (result == -Libc.ErrnoInterrupted)
        {
            return 0;
        }

        Check(result, operation, path);
        return result;
    }
}

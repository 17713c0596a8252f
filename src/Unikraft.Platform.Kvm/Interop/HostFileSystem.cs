using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>The file system of the host.</summary>
internal sealed unsafe class HostFileSystem : IFileSystem
{
    /// <summary>Guest memory may hold secrets: only the owner reads it.</summary>
    private const uint OwnerOnly = 0x180;
    private const uint OwnerOnlyDirectory = 0x1C0;

    internal static HostFileSystem Instance { get; } = new();

    public int MakeDirectory(string path) => Result(Libc.MakeDirectory(path, OwnerOnlyDirectory));

    public int List(string path, List<string> names)
    {
        try
        {
            names.AddRange(Directory.EnumerateFiles(path).Select(static file => Path.GetFileName(file)));
            return 0;
        }
        catch (UnauthorizedAccessException)
        {
            return -Libc.ErrnoAccess;
        }
        catch (DirectoryNotFoundException)
        {
            return -Libc.ErrnoNoEntry;
        }
        catch (IOException)
        {
            return -Libc.ErrnoInputOutput;
        }
    }

    public int Create(string path, out DescriptorHandle file) => Open(
        Libc.Open(path, Libc.OpenWriteOnly | Libc.OpenCreate | Libc.OpenTruncate | Libc.OpenCloseOnExec, OwnerOnly),
        out file);

    public int OpenRead(string path, out DescriptorHandle file) =>
        Open(Libc.Open(path, Libc.OpenReadOnly | Libc.OpenCloseOnExec, mode: 0), out file);

    public int OpenDirect(string path, out DescriptorHandle file)
    {
        int result = Open(Libc.Open(path, Libc.OpenReadWrite | Libc.OpenDirect | Libc.OpenCloseOnExec, mode: 0), out file);

        // Not every file system can.
        return result == -Libc.ErrnoInvalid ? Open(Libc.Open(path, Libc.OpenReadWrite | Libc.OpenCloseOnExec, mode: 0), out file) : result;
    }

    public int OpenLocked(string path, out DescriptorHandle file)
    {
        int result = Open(Libc.Open(path, Libc.OpenReadWrite | Libc.OpenCreate | Libc.OpenCloseOnExec, OwnerOnly), out file);
        if (result >= 0 && Libc.Lock(file, Libc.LockExclusive | Libc.LockNonBlocking) < 0)
        {
            result = LastError();
            file.Dispose();
        }

        return result;
    }

    public int Stat(DescriptorHandle file, out FileStamp stamp)
    {
        int result = Result(Libc.Statx(file, "", Libc.AtEmptyPath, Libc.StatxBasicStats, out FileStatus status));
        stamp = new FileStamp(
            (long)status.Size,
            status.Inode,
            (ulong)status.DeviceMajor << 32 | status.DeviceMinor,
            status.ChangeSeconds,
            status.ChangeNanoseconds);
        return result;
    }

    public int Read(DescriptorHandle file, Span<byte> buffer, long offset)
    {
        fixed (byte* first = buffer)
        {
            return Result((int)Libc.ReadAt(file, (nint)first, (nuint)buffer.Length, offset));
        }
    }

    public int Write(DescriptorHandle file, ReadOnlySpan<byte> buffer, long offset)
    {
        fixed (byte* first = buffer)
        {
            return Result((int)Libc.WriteAt(file, (nint)first, (nuint)buffer.Length, offset));
        }
    }

    public int Sync(DescriptorHandle file) => Result(Libc.Sync(file));

    public int WriteBack(DescriptorHandle file, bool isAwaited) => Result(Libc.SyncFileRange(
        file,
        offset: 0,
        length: 0,
        Libc.SyncFileRangeWrite | (isAwaited ? Libc.SyncFileRangeWaitBefore | Libc.SyncFileRangeWaitAfter : 0)));

    public int SyncData(SafeFileHandle file) => Result(Libc.SyncData(file));

    public int SyncData(DescriptorHandle file) => Result(Libc.SyncData(file));

    public int Rename(string from, string to) => Result(Libc.Rename(from, to));

    public int Delete(string path) => Result(Libc.Unlink(path));

    public int SyncDirectory(string path)
    {
        int result = Open(Libc.Open(path, Libc.OpenReadOnly | Libc.OpenDirectory | Libc.OpenCloseOnExec, mode: 0), out DescriptorHandle directory);
        using (directory)
        {
            return result < 0 ? result : Result(Libc.Sync(directory));
        }
    }

    private static int Open(int descriptor, out DescriptorHandle file)
    {
        int result = Result(descriptor);
        file = new DescriptorHandle(descriptor);
        return Math.Min(result, 0);
    }

    private static int Result(int result) => result < 0 ? LastError() : result;

    private static int LastError() => -Marshal.GetLastPInvokeError();
}

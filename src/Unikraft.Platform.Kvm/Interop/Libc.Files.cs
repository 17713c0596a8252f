using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Unikraft.Platform.Kvm.Interop;

internal static partial class Libc
{
    internal const int OpenReadOnly = 0;
    internal const int OpenWriteOnly = 1;
    internal const int OpenCreate = 0x40;
    internal const int OpenTruncate = 0x200;
    internal const int OpenDirectory = 0x10000;

    /// <summary>Past the host's cache: places and lengths are multiples of its blocks.</summary>
    internal const int OpenDirect = 0x4000;

    internal const int LockExclusive = 2;
    internal const int LockNonBlocking = 4;

    internal const uint SyncFileRangeWaitBefore = 1;
    internal const uint SyncFileRangeWrite = 2;
    internal const uint SyncFileRangeWaitAfter = 4;

    internal const int AtEmptyPath = 0x1000;
    internal const uint StatxBasicStats = 0x7FF;

    internal const int ErrnoNoEntry = 2;
    internal const int ErrnoInputOutput = 5;
    internal const int ErrnoAccess = 13;
    internal const int ErrnoExists = 17;
    internal const int ErrnoNoSpace = 28;
    internal const int ErrnoQuota = 122;

    [LibraryImport(Library, EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Open(string path, int flags, uint mode);

    [LibraryImport(Library, EntryPoint = "mkdir", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int MakeDirectory(string path, uint mode);

    [LibraryImport(Library, EntryPoint = "fsync", SetLastError = true)]
    internal static partial int Sync(DescriptorHandle descriptor);

    [LibraryImport(Library, EntryPoint = "fdatasync", SetLastError = true)]
    internal static partial int SyncData(DescriptorHandle descriptor);

    [LibraryImport(Library, EntryPoint = "fdatasync", SetLastError = true)]
    internal static partial int SyncData(SafeFileHandle descriptor);

    [LibraryImport(Library, EntryPoint = "sync_file_range", SetLastError = true)]
    internal static partial int SyncFileRange(DescriptorHandle descriptor, long offset, long length, uint flags);

    [LibraryImport(Library, EntryPoint = "flock", SetLastError = true)]
    internal static partial int Lock(DescriptorHandle descriptor, int operation);

    [LibraryImport(Library, EntryPoint = "rename", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Rename(string from, string to);

    [LibraryImport(Library, EntryPoint = "unlink", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Unlink(string path);

    [LibraryImport(Library, EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Statx(DescriptorHandle directory, string path, int flags, uint mask, out FileStatus status);
}

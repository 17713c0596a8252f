using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>The functions of the C library that a hypervisor needs. No logic: see the handles for that.</summary>
internal static partial class Libc
{
    private const string Library = "libc";

    internal const int OpenReadWrite = 2;
    internal const int OpenCloseOnExec = 0x80000;

    internal const int ProtectionNone = 0;
    internal const int ProtectionRead = 1;
    internal const int ProtectionWrite = 2;

    internal const int MapShared = 0x01;
    internal const int MapPrivate = 0x02;
    internal const int MapFixed = 0x10;
    internal const int MapAnonymous = 0x20;
    internal const int MapNoReserve = 0x4000;
    internal const int MapPopulate = 0x8000;

    internal const int AdviseHugePage = 14;
    internal const int AdviseDontDump = 16;

    internal const uint MemfdCloseOnExec = 0x1;
    internal const uint MemfdAllowSealing = 0x2;
    internal const int AddSeals = 1033;
    internal const int SealSeal = 0x1;
    internal const int SealShrink = 0x2;
    internal const int SealGrow = 0x4;
    internal const int SealFutureWrite = 0x10;

    internal const int ErrnoInterrupted = 4;
    internal const int ErrnoAgain = 11;
    internal const int ErrnoNoMemory = 12;
    internal const int ErrnoInvalid = 22;

    [LibraryImport(Library, EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Open(string path, int flags);

    [LibraryImport(Library, EntryPoint = "close", SetLastError = true)]
    internal static partial int Close(int descriptor);

    [LibraryImport(Library, EntryPoint = "mmap", SetLastError = true)]
    internal static partial nint MemoryMap(nint address, nuint length, int protection, int flags, int descriptor, long offset);

    [LibraryImport(Library, EntryPoint = "munmap", SetLastError = true)]
    internal static partial int MemoryUnmap(nint address, nuint length);

    [LibraryImport(Library, EntryPoint = "madvise", SetLastError = true)]
    internal static partial int MemoryAdvise(nint address, nuint length, int advice);

    [LibraryImport(Library, EntryPoint = "memfd_create", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int MemfdCreate(string name, uint flags);

    [LibraryImport(Library, EntryPoint = "ftruncate", SetLastError = true)]
    internal static partial int Truncate(DescriptorHandle descriptor, long length);

    [LibraryImport(Library, EntryPoint = "fallocate", SetLastError = true)]
    internal static partial int Allocate(DescriptorHandle descriptor, int mode, long offset, long length);

    [LibraryImport(Library, EntryPoint = "fcntl", SetLastError = true)]
    internal static partial int FileControl(DescriptorHandle descriptor, int command, nint argument);

    [LibraryImport(Library, EntryPoint = "pread", SetLastError = true)]
    internal static partial nint ReadAt(DescriptorHandle descriptor, nint buffer, nuint length, long offset);

    [LibraryImport(Library, EntryPoint = "pwrite", SetLastError = true)]
    internal static partial nint WriteAt(DescriptorHandle descriptor, nint buffer, nuint length, long offset);

    [LibraryImport(Library, EntryPoint = "syscall", SetLastError = true)]
    internal static partial nint SystemCall(nint number, nint argument);

    [LibraryImport(Library, EntryPoint = "gettid")]
    internal static partial int GetThreadId();

    [LibraryImport(Library, EntryPoint = "nanosleep")]
    internal static partial int Sleep(in SleepDuration duration, nint remaining);

    [LibraryImport(Library, EntryPoint = "getpid")]
    internal static partial int GetProcessId();

    [LibraryImport(Library, EntryPoint = "tgkill", SetLastError = true)]
    internal static partial int ThreadKill(int process, int thread, int signal);

    [LibraryImport(Library, EntryPoint = "sigaction", SetLastError = true)]
    internal static partial int SignalAction(int signal, in SignalActionArgument action, nint previous);

    [LibraryImport(Library, EntryPoint = "__libc_current_sigrtmin")]
    internal static partial int CurrentRealTimeSignalMinimum();

    [LibraryImport(Library, EntryPoint = "__libc_current_sigrtmax")]
    internal static partial int CurrentRealTimeSignalMaximum();
}

using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>
/// <c>ioctl</c>, one overload for each kind of argument. The function is variadic in C; with integer and pointer arguments a fixed signature
/// is called in the same way on 64-bit Linux.
/// </summary>
internal static partial class KvmIoctl
{
    private const string Library = "libc";
    private const string Function = "ioctl";

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, nint argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref ulong argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmUserspaceMemoryRegion argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmIrqLevel argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmDirtyLog argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmClearDirtyLog argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmEnableCap argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmRegs argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmSregs argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmXsave argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmXcrs argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmVcpuEvents argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmDebugregs argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmMsrs argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmCpuid2 argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmLapicState argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmMpState argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmIrqchip argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmPitConfig argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmPitState2 argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmClockData argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmMsrList argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref KvmAllMsrs argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref UserFaultApi argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref UserFaultRange argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref UserFaultRegister argument);

    [LibraryImport(Library, EntryPoint = Function, SetLastError = true)]
    internal static partial int Call(DescriptorHandle descriptor, nuint request, ref UserFaultCopy argument);
}

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>The page size that memory is tracked, copied and mapped by.</summary>
internal static class PageSize
{
    internal const int Bytes = 4096;
    internal const int Shift = 12;

    internal static long RoundUp(long address) => (address + Bytes - 1) & -Bytes;

    internal static bool IsAligned(long address) => (address & (Bytes - 1)) == 0;
}

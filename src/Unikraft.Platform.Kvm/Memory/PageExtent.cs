namespace Unikraft.Platform.Kvm.Memory;

/// <summary>A run of pages that come from one layer.</summary>
/// <param name="Start">The first page.</param>
/// <param name="Length">The number of pages, in bytes at most 2 GiB less one page.</param>
/// <param name="Layer">The layer.</param>
internal readonly record struct PageExtent(int Start, int Length, MemoryLayer Layer)
{
    /// <summary>Keeps the byte length of an extent below 2 GiB.</summary>
    internal const int MaxLength = (1 << 19) - 1;

    internal int End => Start + Length;
}

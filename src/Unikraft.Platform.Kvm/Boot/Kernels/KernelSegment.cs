namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>A part of a kernel that is loaded.</summary>
/// <param name="Address">Its guest physical address.</param>
/// <param name="MemorySize">The bytes of memory that are its own.</param>
/// <param name="Content">Its bytes; the rest of its memory is zero.</param>
internal sealed record KernelSegment(long Address, long MemorySize, ReadOnlyMemory<byte> Content)
{
    internal long End => Address + MemorySize;
}

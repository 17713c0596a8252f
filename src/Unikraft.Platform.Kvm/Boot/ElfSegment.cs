namespace Unikraft.Platform.Kvm.Boot;

/// <summary>A part of an image that is loaded.</summary>
/// <param name="Address">Its guest virtual address.</param>
/// <param name="MemorySize">Its size in memory.</param>
/// <param name="Content">Its bytes; the rest of its memory is zero.</param>
/// <param name="Access">What the guest may do with it.</param>
internal sealed record ElfSegment(long Address, long MemorySize, ReadOnlyMemory<byte> Content, ElfSegmentAccess Access)
{
    internal long End => Address + MemorySize;

    internal bool IsWritable => Access.HasFlag(ElfSegmentAccess.Write);

    internal bool IsExecutable => Access.HasFlag(ElfSegmentAccess.Execute);
}

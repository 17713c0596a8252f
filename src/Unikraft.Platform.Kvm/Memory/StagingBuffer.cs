using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// Memory that is present already, for the pages copied while a guest stands still: there, a page costs a copy and no allocation.
/// </summary>
internal sealed unsafe class StagingBuffer : SafeHandle
{
    internal StagingBuffer(int pages)
        : base(invalidHandleValue: -1, ownsHandle: true)
    {
        Capacity = pages;
        SetHandle(Libc.MemoryMap(
            address: 0,
            Length,
            Libc.ProtectionRead | Libc.ProtectionWrite,
            Libc.MapPrivate | Libc.MapAnonymous | Libc.MapPopulate,
            descriptor: -1,
            offset: 0));
        if (IsInvalid)
        {
            throw HostError.Last($"Reserving {Length >> 20} MiB for the cut of a snapshot");
        }
    }

    public override bool IsInvalid => handle == -1;

    /// <summary>The number of pages it holds.</summary>
    internal int Capacity { get; }

    private nuint Length => (nuint)Capacity << PageSize.Shift;

    /// <summary>The place for a run of pages.</summary>
    internal Span<byte> Slice(int firstPage, int pages)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstPage);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(pages, Capacity - firstPage);
        return new Span<byte>((byte*)handle + ((long)firstPage << PageSize.Shift), pages << PageSize.Shift);
    }

    protected override bool ReleaseHandle() => Libc.MemoryUnmap(handle, Length) == 0;
}

using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// Memory that is present already, for the pages copied while a guest stands still: there, a page costs a copy and no allocation.
/// </summary>
internal sealed unsafe class StagingBuffer : SafeHandle
{
    private const int HugePages = 512;

    // Fewer go to a disk as fast one by one.
    private const int WorthHuge = 128;

    private readonly nuint _length;
    private readonly nint _first;

    internal StagingBuffer(int pages)
        : this(pages, isHuge: false)
    {
    }

    private StagingBuffer(int pages, bool isHuge)
        : base(invalidHandleValue: -1, ownsHandle: true)
    {
        Capacity = isHuge ? (pages + HugePages - 1) / HugePages * HugePages : pages;

        // The host aligns a mapping to its small pages.
        nuint alignment = isHuge ? (nuint)HugePages << PageSize.Shift : 1;
        _length = ((nuint)Capacity << PageSize.Shift) + alignment - 1;
        SetHandle(Libc.MemoryMap(
            address: 0,
            _length,
            Libc.ProtectionRead | Libc.ProtectionWrite,
            Libc.MapPrivate | Libc.MapAnonymous | (isHuge ? 0 : Libc.MapPopulate),
            descriptor: -1,
            offset: 0));
        if (IsInvalid)
        {
            throw HostError.Last($"Reserving {_length >> 20} MiB for the cut of a snapshot");
        }

        _first = (nint)(((nuint)handle + alignment - 1) / alignment * alignment);
        if (isHuge)
        {
            // A host that has none gives small ones.
            _ = Libc.MemoryAdvise(_first, (nuint)Capacity << PageSize.Shift, Libc.AdviseHugePage);
            new Span<byte>((void*)_first, Capacity << PageSize.Shift).Clear();
        }
    }

    /// <summary>One for what goes from memory to a disk: in huge pages it is in a few pieces, where it would be in hundreds.</summary>
    /// <param name="pages">At least so many.</param>
    internal static StagingBuffer ForDisk(int pages) => new(pages, isHuge: pages >= WorthHuge);

    public override bool IsInvalid => handle == -1;

    /// <summary>The number of pages it holds.</summary>
    internal int Capacity { get; }

    /// <summary>The place for a run of pages.</summary>
    internal Span<byte> Slice(int firstPage, int pages)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstPage);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(pages, Capacity - firstPage);
        return new Span<byte>((byte*)_first + ((long)firstPage << PageSize.Shift), pages << PageSize.Shift);
    }

    protected override bool ReleaseHandle() => Libc.MemoryUnmap(handle, _length) == 0;
}

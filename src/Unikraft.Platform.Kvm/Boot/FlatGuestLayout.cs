using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Boot;

/// <summary>Where everything lies in the memory of a flat guest. The addresses are those of docs/guest-abi.md.</summary>
internal sealed class FlatGuestLayout
{
    internal const uint AbiVersion = 0x0001_0002;
    internal const int MaxVcpus = 8;

    internal const long GdtAddress = 0x1000;
    internal const long IdtAddress = 0x2000;
    internal const long TssAddress = 0x3000;
    internal const long StubsAddress = 0x4000;
    internal const long KernelStacksAddress = 0x5000;
    internal const long InterruptStacksAddress = 0x6000;
    internal const long PageTablesAddress = 0x1_0000;
    internal const long PageTablesEnd = 0xE_E000;
    internal const long DisksVirtualAddress = 0xE_E000;
    internal const int DisksLength = 0x2000;
    internal const long InfoAddress = 0xF_0000;
    internal const long StringsAddress = 0xF_1000;
    internal const long StringsEnd = 0xF_C000;
    internal const long CallBlocksAddress = 0xF_C000;
    internal const int CallBlockSize = 64;
    internal const long SyscallLandingAddress = 0xF_D000;
    internal const long DeviceVirtualAddress = 0xF_E000;
    internal const long FaultVirtualAddress = 0xF_F000;
    internal const ulong DevicePhysicalAddress = 0x40_0000_0000;
    internal const ulong FaultPhysicalAddress = 0x40_0000_1000;
    internal const ulong DisksPhysicalAddress = 0x40_0000_2000;

    internal const int StackSize = 256 << 10;
    internal const ulong HeapWindowEnd = 0x80_0000_0000;

    private readonly GuestRange[] _ranges;

    /// <summary>Lays out an image in a memory.</summary>
    /// <exception cref="ImageException">They do not fit.</exception>
    internal FlatGuestLayout(ElfImage image, long memorySize, int vcpus)
        : this(
            [
                .. image.Segments.Select(segment => new GuestRange(
                    segment.Address & -PageSize.Bytes,
                    PageSize.RoundUp(segment.End),
                    segment.IsWritable)),
            ],
            image.End,
            memorySize,
            vcpus) => image.RequireMemory(MemoryNeeded, memorySize);

    /// <summary>A layout as it was stored. Whether it makes sense is for the caller to check.</summary>
    /// <param name="image">The ranges of the image, by ascending address.</param>
    /// <param name="stacksStart">Where the stacks begin.</param>
    /// <param name="memorySize">The size of the memory in bytes.</param>
    /// <param name="vcpus">The number of vCPUs.</param>
    internal FlatGuestLayout(GuestRange[] image, long stacksStart, long memorySize, int vcpus)
    {
        MemorySize = memorySize;
        Vcpus = vcpus;
        Image = image;
        StacksStart = stacksStart;
        HeapStart = StacksStart + vcpus * (StackSize + PageSize.Bytes) + PageSize.Bytes;
        _ranges =
        [
            .. image,
            .. Enumerable.Range(0, vcpus).Select(index => new GuestRange(StackTop(index) - StackSize, StackTop(index), IsWritable: true)),
            new GuestRange(HeapStart, memorySize, IsWritable: true),
        ];
    }

    /// <summary>What the guest may use of its image, by ascending address.</summary>
    internal IReadOnlyList<GuestRange> Image { get; }

    /// <summary>The least size of the memory that the layout fits into.</summary>
    internal long MemoryNeeded => HeapStart + PageSize.Bytes;

    internal long MemorySize { get; }

    internal int Vcpus { get; }

    internal long StacksStart { get; }

    internal long HeapStart { get; }

    internal static long CallBlock(int vcpu) => CallBlocksAddress + vcpu * CallBlockSize;

    /// <summary>The address behind the stack of a vCPU, below which lie its stack and then a guard page.</summary>
    internal long StackTop(int vcpu) => StacksStart + (vcpu + 1) * (long)(StackSize + PageSize.Bytes);

    /// <summary>Whether an address is in the guard page of a stack.</summary>
    internal bool IsStackGuard(ulong address)
    {
        for (int vcpu = 0; vcpu <= Vcpus; vcpu++)
        {
            ulong guard = (ulong)(StacksStart + vcpu * (long)(StackSize + PageSize.Bytes));
            if (address >= guard && address < guard + PageSize.Bytes)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Whether an address is in the window behind RAM, where touching memory means that there is none left.</summary>
    internal bool IsHeapWindow(ulong address) => address >= (ulong)MemorySize && address < HeapWindowEnd;

    /// <summary>Whether the guest itself may use a range of memory, so that the platform may use it on the guest's behalf.</summary>
    /// <remarks>A range of no bytes is accessible at any address, also at one that is no memory.</remarks>
    internal bool IsAccessible(ulong address, ulong length, bool write)
    {
        if (length == 0)
        {
            return true;
        }

        if (address >= (ulong)MemorySize || length > (ulong)MemorySize - address)
        {
            return false;
        }

        long position = (long)address;
        long end = position + (long)length;
        foreach (GuestRange range in _ranges)
        {
            if (position >= range.Start && position < range.End)
            {
                if (write && !range.IsWritable)
                {
                    return false;
                }

                position = range.End;
            }

            if (position >= end)
            {
                return true;
            }
        }

        return false;
    }
}

using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using CommunityToolkit.HighPerformance.Buffers;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// The RAM of a guest: one private mapping at guest physical address 0. Owned by a handle that outlives every vCPU.
/// </summary>
/// <remarks>
/// The only way to guest memory for the rest of the backend. Every access is checked against the size, every write is recorded in
/// <see cref="WrittenByHost"/>, because KVM's dirty log does not see the writes of the host. The guest may write at any moment: what
/// is read twice may differ.
/// </remarks>
internal sealed unsafe class GuestMemory : SafeHandle
{
    /// <summary>Runs of this many pages are mapped from their layer, shorter ones are copied: a mapping costs about as much as copying them.</summary>
    internal const int MapThreshold = 16;

    /// <summary>The most mappings one guest may take.</summary>
    private const int MaxMappings = 4096;

    /// <summary>So many pages are worth a second thread: they take some 200 us.</summary>
    private const int ParallelCopy = 128;

    /// <summary>So few pages are not worth the calls around placing them.</summary>
    private const int MinPlaced = 16;

    /// <summary>Pages that are read at a time from a layer that is not in memory.</summary>
    private const int ScratchPages = 16;

    /// <summary>Mapping a run parts what was there: the run itself, and what is left behind it.</summary>
    private const int MappingsPerRun = 2;

    /// <summary>The memory begins at a multiple of this, and at least one page on either side of it stays inaccessible.</summary>
    private const int LargePage = 2 << 20;

    /// <summary>That of the process: pages are put into the memory of any guest by the same one.</summary>
    private static readonly UserFaultDescriptor? s_userFaults = UserFaultDescriptor.TryOpen();

    private readonly nint _reservation;
    private readonly MappingBudget _budget;
    private int _mappings;
    private object? _prepared;

    /// <param name="size">The size in bytes.</param>
    /// <param name="slotPages">The most pages of one slot.</param>
    /// <param name="budget">Where mappings are taken from; that of the process when <see langword="null"/>.</param>
    internal GuestMemory(long size, int slotPages = int.MaxValue, MappingBudget? budget = null)
        : base(invalidHandleValue: -1, ownsHandle: true)
    {
        _budget = budget ?? MappingBudget.OfProcess;
        Size = size;
        Pages = (int)(size >> PageSize.Shift);
        Slots = MemorySlot.Divide(Pages, slotPages);

        // Without a border the kernel would make one mapping of two neighbours, and count their pages together.
        _reservation = Reserve(address: 0, ReservedSize, Libc.ProtectionNone);
        if (_reservation != -1)
        {
            SetHandle(Reserve((_reservation + LargePage) & -LargePage, (nuint)size, Libc.ProtectionRead | Libc.ProtectionWrite, Libc.MapFixed));
        }

        if (IsInvalid)
        {
            HypervisorException error = HostError.Last($"Reserving {size >> 20} MiB of guest memory");
            if (_reservation != -1)
            {
                _ = Libc.MemoryUnmap(_reservation, ReservedSize);
            }

            throw error;
        }

        // Advice only: a core dump without guest memory is smaller, not more correct.
        _ = Libc.MemoryAdvise(handle, (nuint)size, Libc.AdviseDontDump);
        WrittenByHost = new PageBitmap(Pages);
    }

    public override bool IsInvalid => handle == -1;

    internal long Size { get; }

    internal int Pages { get; }

    /// <summary>Where guest physical addresses are not those of the memory; devices are told such addresses by drivers.</summary>
    internal MemoryGap Gap { get; init; }

    /// <summary>How KVM is to know the memory.</summary>
    internal MemorySlot[] Slots { get; }

    private nuint ReservedSize => (nuint)Size + 2 * LargePage;

    /// <summary>The pages that the host wrote on behalf of the guest.</summary>
    internal PageBitmap WrittenByHost { get; }

    /// <summary>Bytes of guest memory to read.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The range is not all in guest memory.</exception>
    internal ReadOnlySpan<byte> Read(long address, int length) => Slice(address, length);

    /// <summary>Reads a value once.</summary>
    internal T Read<T>(long address)
        where T : unmanaged => MemoryMarshal.Read<T>(Slice(address, Unsafe.SizeOf<T>()));

    internal void Write(long address, ReadOnlySpan<byte> bytes)
    {
        bytes.CopyTo(Slice(address, bytes.Length));
        MarkWritten(address, bytes.Length);
    }

    internal void Write<T>(long address, T value)
        where T : unmanaged
    {
        MemoryMarshal.Write(Slice(address, Unsafe.SizeOf<T>()), in value);
        MarkWritten(address, Unsafe.SizeOf<T>());
    }

    /// <summary>Lets the host fill a range, for example from a generator of random bytes.</summary>
    /// <returns>The number of bytes filled, as <paramref name="fill"/> tells.</returns>
    internal int Fill<TState>(long address, int length, TState state, Func<Span<byte>, TState, int> fill)
    {
        int filled = fill(Slice(address, length), state);
        MarkWritten(address, filled);
        return filled;
    }

    /// <summary>Makes what stands for a range where others want memory of the host.</summary>
    internal GuestMemoryRange NewRange() => new(this);

    /// <summary>The bytes of a run of pages, at most <see cref="PageExtent.MaxLength"/> of them, for copying them into a layer.</summary>
    internal ReadOnlySpan<byte> PageRun(int firstPage, int pages) => Slice((long)firstPage << PageSize.Shift, pages << PageSize.Shift);

    /// <summary>Puts a chain of layers into memory that is still all zero, for a guest that may come to need it. To be called at most once.</summary>
    /// <param name="map">The chain.</param>
    /// <param name="written">An address in a page that the host will write to: it becomes this memory's own now.</param>
    internal void Prepare(PageMap map, long written)
    {
        Install(map);
        ref byte own = ref Slice(written, 1)[0];
        Volatile.Write(ref own, Volatile.Read(ref own));
        _prepared = map.Identity;
    }

    /// <summary>
    /// Puts a chain of layers into memory that is still all zero, or was prepared with the same chain or with that below its newest layer. To be called
    /// once, before the guest begins.
    /// </summary>
    internal void Install(PageMap map)
    {
        object? prepared = _prepared;
        _prepared = null;
        if (prepared is null)
        {
            Install(map.Plan, map.Extents, isWhole: true);
        }
        else if (prepared != map.Identity)
        {
            MapDifference difference = map.GetDifference(prepared)
                ?? throw new InvalidOperationException("The memory was prepared with a chain of layers that has nothing to do with this one.");
            Install(difference.Plan, difference.Extents, isWhole: false);
            for (int page = 0; difference.Zero is { } zero && zero.NextRun(page, out int start, out int length); page = start + length)
            {
                Slice((long)start << PageSize.Shift, length << PageSize.Shift).Clear();
            }
        }
    }

    private void Install(LoadPlan plan, ReadOnlySpan<PageExtent> extents, bool isWhole)
    {
        int taken = _budget.Take(Math.Min(MaxMappings, MappingsPerRun * plan.Mapped.Length));
        _mappings += taken;
        for (int threshold = 2 * MapThreshold; MappingsPerRun * plan.Mapped.Length > taken; threshold *= 2)
        {
            plan = LoadPlan.Make(extents, threshold, isWhole);
        }

        foreach (PageExtent extent in plan.Mapped)
        {
            long offset = (long)extent.Start << PageSize.Shift;
            extent.Layer.Map(handle + (nint)offset, offset, extent.Length << PageSize.Shift);
        }

        // Every mapping has to be registered: not worth it for a few pages.
        bool isByCall = plan.CopiedPages > MinPlaced + _mappings && s_userFaults?.TryRegister(handle, Size) == true;
        if (!isByCall)
        {
            InParallel(plan, Copy);
            return;
        }

        bool isComplete = true;
        try
        {
            InParallel(plan, (part, from, to) =>
            {
                if (!TryPlace(part, from, to))
                {
                    Volatile.Write(ref isComplete, false);
                }
            });
        }
        finally
        {
            s_userFaults!.Unregister(handle, Size);
        }

        if (!isComplete)
        {
            Copy(plan, 0, plan.Copied.Length);
        }
    }

    /// <summary>Counts the bytes that are this guest's alone, by the kernel's own account of the mapping. 0 when the memory is gone.</summary>
    internal long CountPrivateBytes()
    {
        // AddressStart-AddressEnd opens the entry of a mapping; "Anonymous: N kB" is one of its lines. A page of a layer that only one
        // guest has mapped so far would count as private, but not as anonymous.
        const string Anonymous = "Anonymous:";
        if (IsClosed)
        {
            return 0;
        }

        ulong start = (ulong)handle;
        ulong end = start + (ulong)Size;
        long kilobytes = 0;
        bool mine = false;
        foreach (string line in File.ReadLines("/proc/self/smaps"))
        {
            int dash = line.IndexOf('-', StringComparison.Ordinal);
            if (dash > 0 && ulong.TryParse(line.AsSpan(0, dash), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong address))
            {
                mine = address >= start && address < end;
            }
            else if (mine && line.StartsWith(Anonymous, StringComparison.Ordinal))
            {
                ReadOnlySpan<char> number = line.AsSpan(Anonymous.Length).Trim();
                kilobytes += long.Parse(number[..number.IndexOf(' ')], CultureInfo.InvariantCulture);
            }
        }

        return kilobytes << 10;
    }

    /// <summary>How much of the guest's memory is in the host's, its own and what it shares with others. 0 when it was given back.</summary>
    internal long CountResidentBytes() => IsClosed ? 0 : ResidentPages.CountBytes(handle, Pages);

    protected override bool ReleaseHandle()
    {
        _budget.Return(_mappings);
        return Libc.MemoryUnmap(_reservation, ReservedSize) == 0;
    }

    private static nint Reserve(nint address, nuint length, int protection, int flags = 0) => Libc.MemoryMap(
        address,
        length,
        protection,
        Libc.MapPrivate | Libc.MapAnonymous | Libc.MapNoReserve | flags,
        descriptor: -1,
        offset: 0);

    /// <summary>Does the work of many pages on two threads: most of it is the kernel's, which does it for two at a time.</summary>
    private static void InParallel(LoadPlan plan, Action<LoadPlan, int, int> work)
    {
        if (plan.CopiedPages < ParallelCopy)
        {
            work(plan, 0, plan.Copied.Length);
            return;
        }

        int half = plan.Copied.Length / 2;
        Task others = Task.Run(() => work(plan, half, plan.Copied.Length));
        try
        {
            work(plan, 0, half);
        }
        finally
        {
            others.GetAwaiter().GetResult();
        }
    }

    /// <summary>Copies without a page fault for each page.</summary>
    private bool TryPlace(LoadPlan plan, int from, int to)
    {
        using SpanOwner<byte> owner = SpanOwner<byte>.Allocate(ScratchPages << PageSize.Shift);
        fixed (byte* scratch = owner.Span)
        {
            foreach (PageExtent extent in plan.Copied[from..to])
            {
                for (int page = extent.Start; page < extent.End; page += ScratchPages)
                {
                    long offset = (long)page << PageSize.Shift;
                    int length = Math.Min(ScratchPages, extent.End - page) << PageSize.Shift;
                    if (!TryPlace(extent.Layer, offset, owner.Span[..length], (nint)scratch))
                    {
                        return false;
                    }
                }
            }
        }

        return true;
    }

    private bool TryPlace(MemoryLayer layer, long offset, Span<byte> scratch, nint scratchAddress)
    {
        ReadOnlySpan<byte> present = layer.GetPresent(offset, scratch.Length);
        if (present.IsEmpty)
        {
            layer.Read(scratch, offset);
            return TryPlace(offset, scratch, scratchAddress);
        }

        fixed (byte* source = present)
        {
            return TryPlace(offset, present, (nint)source);
        }
    }

    private bool TryPlace(long offset, ReadOnlySpan<byte> content, nint source)
    {
        for (int done = 0; done < content.Length;)
        {
            if (!s_userFaults!.TryCopy(handle + (nint)offset + done, source + done, content.Length - done, out int placed))
            {
                return false;
            }

            done += placed;
            if (done < content.Length)
            {
                // The memory was prepared, and the snapshot below had put the page there: writing to it takes no fault.
                content.Slice(done, PageSize.Bytes).CopyTo(Slice(offset + done, PageSize.Bytes));
                done += PageSize.Bytes;
            }
        }

        return true;
    }

    private void Copy(LoadPlan plan, int from, int to)
    {
        foreach (PageExtent extent in plan.Copied[from..to])
        {
            long offset = (long)extent.Start << PageSize.Shift;
            extent.Layer.Read(Slice(offset, extent.Length << PageSize.Shift), offset);
        }
    }

    internal void MarkWritten(long address, int length)
    {
        // After the write: a collector that misses the mark copies the new bytes or sees the mark next time.
        int last = (int)((address + length - 1) >> PageSize.Shift);
        for (int page = (int)(address >> PageSize.Shift); page <= last; page++)
        {
            WrittenByHost.SetConcurrently(page);
        }
    }

    /// <summary>Asks the processor for bytes that are likely to be read next. Without any effect otherwise, whatever the address is.</summary>
    internal void Prefetch(long address)
    {
        if (Sse.IsSupported && (ulong)address < (ulong)Size && !IsClosed)
        {
            Sse.Prefetch0((byte*)handle + address);
        }
    }

    /// <summary>A range as it is. Who writes to it calls <see cref="MarkWritten"/> afterwards.</summary>
    internal Span<byte> Slice(long address, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfNegative(address);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(address, Size - length);
        ObjectDisposedException.ThrowIf(IsClosed, this);
        return new Span<byte>((byte*)handle + address, length);
    }
}

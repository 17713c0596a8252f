using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// A memory file whose pages are there before they are needed, and mapped: storing a page in it costs a copy, reading one no call.
/// </summary>
internal sealed unsafe class LayerSheet : SafeHandle
{
    private readonly MappingBudget _budget;

    private LayerSheet(int pages, MappingBudget budget)
        : base(invalidHandleValue: -1, ownsHandle: true)
    {
        _budget = budget;
        Capacity = pages;
        File = new DescriptorHandle(HostError.Check(
            Libc.MemfdCreate("unikraft-layer", Libc.MemfdCloseOnExec | Libc.MemfdAllowSealing),
            "Creating a memory layer"));
        try
        {
            // Where memory is short this is an error; a fault in the mapping would be a signal that ends the host.
            HostError.Check(Libc.Allocate(File, mode: 0, offset: 0, (long)Length), "Providing memory for a layer");
            SetHandle(Libc.MemoryMap(
                address: 0,
                Length,
                Libc.ProtectionRead | Libc.ProtectionWrite,
                Libc.MapShared | Libc.MapPopulate,
                (int)File.DangerousGetHandle(),
                offset: 0));
            if (IsInvalid)
            {
                throw HostError.Last($"Providing {Length >> 20} MiB for a memory layer");
            }
        }
        catch
        {
            File.Dispose();
            throw;
        }

        // Advice only, as for the memory of guests.
        _ = Libc.MemoryAdvise(handle, Length, Libc.AdviseDontDump);
    }

    public override bool IsInvalid => handle == -1;

    /// <summary>The number of pages that are there.</summary>
    internal int Capacity { get; }

    /// <summary>The file. Pages beyond the capacity can be written to it.</summary>
    internal DescriptorHandle File { get; }

    private nuint Length => (nuint)Capacity << PageSize.Shift;

    /// <summary>Makes one.</summary>
    /// <param name="pages">The number of pages.</param>
    /// <param name="budget">Where its mapping is taken from; that of the process when <see langword="null"/>.</param>
    /// <returns><see langword="null"/> when mappings are short.</returns>
    internal static LayerSheet? TryMake(int pages, MappingBudget? budget = null)
    {
        budget ??= MappingBudget.OfProcess;
        if (!budget.TryTakeSpare())
        {
            return null;
        }

        try
        {
            return new LayerSheet(pages, budget);
        }
        catch
        {
            budget.Return(1);
            throw;
        }
    }

    /// <summary>The place of a run of pages, all of them within the capacity.</summary>
    internal Span<byte> Slice(int position, int pages)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(position);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(pages, Capacity - position);
        ObjectDisposedException.ThrowIf(IsClosed, this);
        return new Span<byte>((byte*)handle + ((long)position << PageSize.Shift), pages << PageSize.Shift);
    }

    /// <summary>Gives back what lies behind the pages that are used, and lets nobody change the size any more.</summary>
    internal void Trim(int used)
    {
        if (used < Capacity)
        {
            HostError.Check(Libc.Truncate(File, (long)used << PageSize.Shift), "Trimming a memory layer");
        }

        HostError.Check(
            Libc.FileControl(File, Libc.AddSeals, Libc.SealShrink | Libc.SealGrow | Libc.SealFutureWrite | Libc.SealSeal),
            "Sealing a memory layer");
    }

    protected override bool ReleaseHandle()
    {
        File.Dispose();
        _budget.Return(1);
        return Libc.MemoryUnmap(handle, Length) == 0;
    }
}

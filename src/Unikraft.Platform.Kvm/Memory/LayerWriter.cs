using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>Builds a <see cref="MemoryLayer"/>: takes pages, possibly the same one more than once, until it is sealed.</summary>
internal sealed unsafe class LayerWriter : IDisposable
{
    private readonly DescriptorHandle _file;
    private readonly nuint _size;
    private readonly PageBitmap _stored;
    private readonly PageBitmap _zero;
    private nint _mapping;
    private bool _sealed;

    internal LayerWriter(int pages)
    {
        _size = (nuint)pages << PageSize.Shift;
        _stored = new PageBitmap(pages);
        _zero = new PageBitmap(pages);
        _file = new DescriptorHandle(HostError.Check(
            Libc.MemfdCreate("unikraft-layer", Libc.MemfdCloseOnExec | Libc.MemfdAllowSealing),
            "Creating a memory layer"));
        try
        {
            HostError.Check(Libc.Truncate(_file, (long)_size), "Sizing a memory layer");
            _mapping = Libc.MemoryMap(
                address: 0,
                _size,
                Libc.ProtectionRead | Libc.ProtectionWrite,
                Libc.MapShared | Libc.MapNoReserve,
                (int)_file.DangerousGetHandle(),
                offset: 0);
            if (_mapping == -1)
            {
                throw HostError.Last("Mapping a memory layer");
            }

            _ = Libc.MemoryAdvise(_mapping, _size, Libc.AdviseDontDump);
        }
        catch
        {
            _file.Dispose();
            throw;
        }
    }

    /// <summary>Takes the present content of some pages. Pages of zeroes take no room.</summary>
    internal void Copy(GuestMemory memory, PageBitmap pages)
    {
        for (int from = 0; pages.NextRun(from, out int start, out int length); from = start + length)
        {
            for (int page = start; page < start + length; page++)
            {
                Copy(page, memory.Page(page));
            }
        }
    }

    /// <summary>Ends the building.</summary>
    /// <param name="parent">What the layer builds on; <see langword="null"/> for memory that was zero.</param>
    /// <returns>The map of parent and layer together, which holds the layer.</returns>
    internal PageMap Seal(PageMap? parent)
    {
        Unmap();
        HostError.Check(
            Libc.FileControl(_file, Libc.AddSeals, Libc.SealShrink | Libc.SealGrow | Libc.SealWrite | Libc.SealSeal),
            "Sealing a memory layer");
        MemoryLayer layer = new(_file, (long)_stored.Count() << PageSize.Shift);
        _sealed = true;
        try
        {
            return PageMap.Overlay(parent, layer, _stored, _zero);
        }
        finally
        {
            layer.Release();
        }
    }

    public void Dispose()
    {
        Unmap();
        if (!_sealed)
        {
            _file.Dispose();
        }
    }

    private void Copy(int page, ReadOnlySpan<byte> content)
    {
        if (content.ContainsAnyExcept((byte)0))
        {
            content.CopyTo(new Span<byte>((byte*)_mapping + ((long)page << PageSize.Shift), PageSize.Bytes));
            _stored.Set(page);
            _zero.Clear(page);
        }
        else
        {
            _zero.Set(page);
            _stored.Clear(page);
        }
    }

    private void Unmap()
    {
        if (_mapping != 0)
        {
            _ = Libc.MemoryUnmap(_mapping, _size);
            _mapping = 0;
        }
    }
}

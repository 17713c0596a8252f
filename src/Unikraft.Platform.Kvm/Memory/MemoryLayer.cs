using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// The pages that changed between two snapshots, immutable, shared by everything that builds on them and freed with the last user.
/// </summary>
/// <remarks>
/// One of three: a sealed, sparse memory file in which every page lies at its guest physical address; a <see cref="LayerSheet"/> with few pages, packed as
/// they came; or an opened layer file in which they are packed by ascending address. In all, pages that lie together can be mapped with one call.
/// </remarks>
internal sealed class MemoryLayer
{
    private readonly DescriptorHandle _file;
    private readonly PageBitmap? _stored;
    private readonly PageIndex? _packed;
    private readonly LayerSheet? _sheet;
    private readonly long _contentOffset;
    private readonly Action<MemoryLayer>? _freed;
    private PageIndex? _ascending;
    private int _references = 1;

    /// <summary>A memory file.</summary>
    /// <param name="file">The file, which is taken over.</param>
    /// <param name="storedBytes">Bytes of memory that it holds.</param>
    /// <param name="stored">The pages that it holds, which do not change any more; <see langword="null"/> when nobody will save it.</param>
    internal MemoryLayer(DescriptorHandle file, long storedBytes, PageBitmap? stored = null)
    {
        _file = file;
        _stored = stored;
        StoredBytes = storedBytes;
        Id = Guid.NewGuid();
    }

    /// <summary>A sheet.</summary>
    /// <param name="sheet">The sheet, which is taken over.</param>
    /// <param name="stored">The pages that it holds, which do not change any more.</param>
    /// <param name="positions">Where they lie.</param>
    internal MemoryLayer(LayerSheet sheet, PageBitmap stored, PageIndex positions)
    {
        _file = sheet.File;
        _sheet = sheet;
        _stored = stored;
        _packed = positions;
        StoredBytes = (long)positions.StoredPages << PageSize.Shift;
        Id = Guid.NewGuid();
    }

    /// <summary>A layer file.</summary>
    /// <param name="file">The file, which is taken over.</param>
    /// <param name="id">What tells the layer from all others.</param>
    /// <param name="packed">The pages that it holds.</param>
    /// <param name="contentOffset">Where the first of them lies.</param>
    /// <param name="freed">Told when the last reference is gone. Must not throw.</param>
    internal MemoryLayer(DescriptorHandle file, Guid id, PageIndex packed, long contentOffset, Action<MemoryLayer> freed)
    {
        _file = file;
        _packed = packed;
        _contentOffset = contentOffset;
        _freed = freed;
        StoredBytes = (long)packed.StoredPages << PageSize.Shift;
        Id = id;
    }

    /// <summary>What tells the layer from all others, in memory and in files.</summary>
    internal Guid Id { get; }

    /// <summary>Bytes of memory that the layer holds.</summary>
    internal long StoredBytes { get; }

    /// <summary>What it was folded from; <see langword="null"/> when it was not, or is kept by itself.</summary>
    internal FoldOrigin? Origin { get; set; }

    /// <summary>Whether it can say which pages it holds.</summary>
    internal bool KnowsPages => _stored is not null || _packed is not null;

    /// <summary>The pages that the layer holds, as they lie when packed by ascending address.</summary>
    internal PageIndex GetIndex() => _stored is not null
        ? _ascending ??= PageIndex.From(_stored)
        : _packed ?? throw new InvalidOperationException("The layer does not know its pages.");

    /// <summary>Counts the pages from one on that can be mapped with one call. The first one is held.</summary>
    /// <param name="page">The page.</param>
    /// <param name="pages">The most to count.</param>
    internal int CountTogether(int page, int pages) => _packed is null ? pages : Math.Min(pages, _packed.CountTogether(page, out _));

    /// <summary>Whether one mapping can cover a run of pages, some of which the layer may not hold: they are zero then.</summary>
    internal bool CanSpan(int page, int pages) => _packed is null
        ? _stored is not null
        : _packed.TryFind(page, pages, out _);

    /// <summary>Whether the layer, where it can span them, has zeroes in a run of pages.</summary>
    internal bool IsZero(int page, int pages) => _packed is null && _stored is not null && _stored.IsClear(page, pages);

    /// <exception cref="ObjectDisposedException">The last reference is gone, and the layer with it.</exception>
    internal void AddReference() => ObjectDisposedException.ThrowIf(!TryAddReference(), this);

    /// <returns>False when the last reference is gone, and the layer with it.</returns>
    internal bool TryAddReference()
    {
        // Counted up from 1 or more only: a refused attempt must not bring the layer back to life.
        int references = Volatile.Read(ref _references);
        int seen;
        do
        {
            if (references == 0)
            {
                return false;
            }

            seen = references;
            references = Interlocked.CompareExchange(ref _references, seen + 1, seen);
        }
        while (references != seen);
        return true;
    }

    internal void Release()
    {
        if (Interlocked.Decrement(ref _references) == 0)
        {
            _file.Dispose();
            _sheet?.Dispose();
            _freed?.Invoke(this);
        }
    }

    /// <summary>Maps a run of pages copy-on-write over a part of guest memory.</summary>
    /// <param name="address">Where to.</param>
    /// <param name="offset">The guest physical address of the first page.</param>
    /// <param name="length">The number of bytes, in whole pages.</param>
    internal void Map(nint address, long offset, int length)
    {
        long fileOffset = ToFileOffset(offset, length);
        bool added = false;
        try
        {
            _file.DangerousAddRef(ref added);
            nint mapped = Libc.MemoryMap(
                address,
                (nuint)length,
                Libc.ProtectionRead | Libc.ProtectionWrite,
                Libc.MapPrivate | Libc.MapFixed | Libc.MapNoReserve,
                (int)_file.DangerousGetHandle(),
                fileOffset);
            if (mapped == -1)
            {
                throw HostError.Last("Mapping a memory layer");
            }

            _ = Libc.MemoryAdvise(address, (nuint)length, Libc.AdviseDontDump);
        }
        finally
        {
            if (added)
            {
                _file.DangerousRelease();
            }
        }
    }

    /// <summary>Finds some pages in memory that is there already.</summary>
    /// <param name="offset">The guest physical address of the first page.</param>
    /// <param name="length">The number of bytes, in whole pages.</param>
    /// <returns>The pages; empty when not all of them lie together in such memory.</returns>
    internal ReadOnlySpan<byte> GetPresent(long offset, int length) =>
        _sheet is not null
        && _packed!.TryFind((int)(offset >> PageSize.Shift), length >> PageSize.Shift, out int position)
        && position + (length >> PageSize.Shift) <= _sheet.Capacity
            ? _sheet.Slice(position, length >> PageSize.Shift)
            : default;

    /// <summary>Copies a run of pages.</summary>
    /// <param name="destination">Where to, in whole pages.</param>
    /// <param name="offset">The guest physical address of the first page.</param>
    internal void Read(Span<byte> destination, long offset)
    {
        while (!destination.IsEmpty)
        {
            int length = Math.Max(1, CountTogether((int)(offset >> PageSize.Shift), destination.Length >> PageSize.Shift)) << PageSize.Shift;
            ReadTogether(destination[..length], offset);
            destination = destination[length..];
            offset += length;
        }
    }

    private unsafe void ReadTogether(Span<byte> destination, long offset)
    {
        ReadOnlySpan<byte> present = GetPresent(offset, destination.Length);
        if (!present.IsEmpty)
        {
            present.CopyTo(destination);
            return;
        }

        offset = ToFileOffset(offset, destination.Length);
        fixed (byte* first = destination)
        {
            int done = 0;
            while (done < destination.Length)
            {
                nint read = Libc.ReadAt(_file, (nint)first + done, (nuint)(destination.Length - done), offset + done);
                if (read <= 0)
                {
                    throw read < 0 ? HostError.Last("Reading a memory layer") : new HypervisorException("A memory layer is shorter than its index.");
                }

                done += (int)read;
            }
        }
    }

    private long ToFileOffset(long offset, int length)
    {
        if (_packed is null)
        {
            return offset;
        }

        int page = (int)(offset >> PageSize.Shift);
        int pages = length >> PageSize.Shift;
        return _packed.TryFind(page, pages, out int position)
            ? _contentOffset + ((long)position << PageSize.Shift)
            : throw new HypervisorException($"Memory layer {Id} does not hold all of the {pages} pages from page {page}.");
    }
}

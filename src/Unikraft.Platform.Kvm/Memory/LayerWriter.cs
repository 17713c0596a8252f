using System.Buffers;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>Builds a <see cref="MemoryLayer"/>: takes pages, possibly the same one more than once, until it is sealed.</summary>
/// <remarks>
/// Many pages are written to a sparse file, not copied into a mapping of it: a write of a run costs one call, a mapping one fault for each new page.
/// Few pages are copied into a sheet.
/// </remarks>
internal sealed class LayerWriter : IDisposable
{
    /// <summary>The share of a guest's pages up to which a layer is packed: zeroes between packed pages part a mapping.</summary>
    private const int PackedShare = 8;

    /// <summary>The fewest pages that are worth a sheet, which has to be replaced: writing them to a file takes some 250 us.</summary>
    private const int MinPacked = 128;

    private readonly SheetPool? _sheets;
    private readonly PageBitmap _stored;
    private readonly PageBitmap _zero;
    private StagingBuffer? _staging;
    private DescriptorHandle? _file;
    private LayerSheet? _sheet;

    /// <summary>Where each page lies in the sheet, if it was stored there.</summary>
    private int[] _positions = [];
    private int _used;
    private bool _sealed;

    /// <param name="pages">The number of pages of the guest.</param>
    /// <param name="sheets">Where to take a sheet from; <see langword="null"/> for a layer that is not packed.</param>
    internal LayerWriter(int pages, SheetPool? sheets = null)
    {
        _sheets = sheets;
        _stored = new PageBitmap(pages);
        _zero = new PageBitmap(pages);
    }

    /// <summary>The pages that the last <see cref="Stage"/> copied into its buffer.</summary>
    internal int Staged { get; private set; }

    /// <summary>Tells how many pages are about to be stored, before the first of them is.</summary>
    internal void Expect(int pages)
    {
        if (_sheets is null || _file is not null || _sheet is not null || pages < MinPacked || pages > _stored.Pages / PackedShare)
        {
            return;
        }

        // A quarter more for what changes meanwhile. What comes beyond that is written to the end of the file.
        _sheet = _sheets.Rent(pages + pages / 4 + PageBitmap.BitsPerWord);
        _positions = _sheet is null ? [] : ArrayPool<int>.Shared.Rent(_stored.Pages);
    }

    /// <summary>Takes the present content of some pages as quickly as possible, for <see cref="FlushStaged"/> to do the rest of the work.</summary>
    /// <remarks>What does not fit into the buffer is stored at once, which is several times slower.</remarks>
    internal void Stage(GuestMemory memory, PageBitmap pages, StagingBuffer buffer)
    {
        _staging = buffer;
        Staged = 0;
        for (int from = 0; pages.NextRun(from, out int start, out int length); from = start + length)
        {
            int fitting = Math.Min(length, buffer.Capacity - Staged);
            memory.PageRun(start, fitting).CopyTo(buffer.Slice(Staged, fitting));
            Staged += fitting;
            if (fitting < length)
            {
                Store(start + fitting, memory.PageRun(start + fitting, length - fitting));
            }
        }
    }

    /// <summary>Stores the pages that were staged.</summary>
    /// <param name="memory">The memory that they were staged from.</param>
    /// <param name="pages">The pages that were given to <see cref="Stage"/>.</param>
    /// <param name="changed">Where to note the pages that the memory holds otherwise by now, and those that were not staged.</param>
    internal void FlushStaged(GuestMemory memory, PageBitmap pages, PageBitmap changed)
    {
        int position = 0;
        for (int from = 0; pages.NextRun(from, out int start, out int length); from = start + length)
        {
            int staged = Math.Min(length, Staged - position);
            if (staged > 0)
            {
                ReadOnlySpan<byte> content = _staging!.Slice(position, staged);
                Store(start, content);
                NoteChanged(content, memory.PageRun(start, staged), start, changed);
                position += staged;
            }

            for (int page = start + staged; page < start + length; page++)
            {
                changed.Set(page);
            }
        }
    }

    /// <summary>Stores a run of pages, parted where it changes between zeroes and content.</summary>
    internal void Store(int firstPage, ReadOnlySpan<byte> content)
    {
        int pages = content.Length >> PageSize.Shift;
        for (int start = 0; start < pages;)
        {
            bool isZero = IsZero(content, start);
            int end = start + 1;
            while (end < pages && IsZero(content, end) == isZero)
            {
                end++;
            }

            if (!isZero)
            {
                ReadOnlySpan<byte> run = content[(start << PageSize.Shift)..(end << PageSize.Shift)];
                if (_sheet is null)
                {
                    Write(_file ??= MakeFile(), run, (long)(firstPage + start) << PageSize.Shift);
                }
                else
                {
                    Pack(_sheet, run, firstPage + start);
                }
            }

            Note(firstPage + start, firstPage + end, isZero);
            start = end;
        }
    }

    /// <summary>Ends the building.</summary>
    /// <param name="parent">What the layer builds on; <see langword="null"/> for memory that was zero.</param>
    /// <returns>The map of parent and layer together, which holds the layer.</returns>
    internal PageMap Seal(PageMap? parent)
    {
        MemoryLayer layer = _sheet is null ? SealFile(_file ??= MakeFile()) : SealSheet(_sheet);
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
        if (!_sealed)
        {
            _file?.Dispose();
            _sheet?.Dispose();
        }

        if (_positions.Length > 0)
        {
            ArrayPool<int>.Shared.Return(_positions);
            _positions = [];
        }
    }

    private static void NoteChanged(ReadOnlySpan<byte> staged, ReadOnlySpan<byte> present, int firstPage, PageBitmap changed)
    {
        // Mostly nothing has: one comparison for the whole run then.
        for (int done = staged.CommonPrefixLength(present); done < staged.Length;)
        {
            int page = done >> PageSize.Shift;
            changed.Set(firstPage + page);
            done = (page + 1) << PageSize.Shift;
            done += staged[done..].CommonPrefixLength(present[done..]);
        }
    }

    private static bool IsZero(ReadOnlySpan<byte> content, int page) =>
        !content.Slice(page << PageSize.Shift, PageSize.Bytes).ContainsAnyExcept((byte)0);

    private MemoryLayer SealFile(DescriptorHandle file)
    {
        // Nobody has mapped it for writing, so that this seals it against all writes; a seal against writes would look at every page, and wait for those in use.
        HostError.Check(
            Libc.FileControl(file, Libc.AddSeals, Libc.SealShrink | Libc.SealGrow | Libc.SealFutureWrite | Libc.SealSeal),
            "Sealing a memory layer");
        return new MemoryLayer(file, (long)_stored.Count() << PageSize.Shift, _stored);
    }

    private MemoryLayer SealSheet(LayerSheet sheet)
    {
        MemoryLayer layer = new(sheet, _stored, PageIndex.From(_stored, _positions));
        _sheets!.TrimLater(layer, sheet, _used);
        return layer;
    }

    private DescriptorHandle MakeFile()
    {
        DescriptorHandle file = new(HostError.Check(
            Libc.MemfdCreate("unikraft-layer", Libc.MemfdCloseOnExec | Libc.MemfdAllowSealing),
            "Creating a memory layer"));
        try
        {
            HostError.Check(Libc.Truncate(file, (long)_stored.Pages << PageSize.Shift), "Sizing a memory layer");
            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private void Pack(LayerSheet sheet, ReadOnlySpan<byte> content, int firstPage)
    {
        for (int page = firstPage; !content.IsEmpty; page++)
        {
            if (!_stored[page])
            {
                _positions[page] = _used++;
            }

            int position = _positions[page];
            if (position < sheet.Capacity)
            {
                content[..PageSize.Bytes].CopyTo(sheet.Slice(position, 1));
            }
            else
            {
                Write(sheet.File, content[..PageSize.Bytes], (long)position << PageSize.Shift);
            }

            content = content[PageSize.Bytes..];
        }
    }

    private static unsafe void Write(DescriptorHandle file, ReadOnlySpan<byte> content, long offset)
    {
        fixed (byte* first = content)
        {
            int done = 0;
            while (done < content.Length)
            {
                nint written = Libc.WriteAt(file, (nint)first + done, (nuint)(content.Length - done), offset + done);
                if (written <= 0)
                {
                    throw HostError.Last("Writing a memory layer");
                }

                done += (int)written;
            }
        }
    }

    private void Note(int start, int end, bool isZero)
    {
        for (int page = start; page < end; page++)
        {
            (isZero ? _zero : _stored).Set(page);
            (isZero ? _stored : _zero).Clear(page);
        }
    }
}

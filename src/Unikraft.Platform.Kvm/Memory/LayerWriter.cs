using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>Builds a <see cref="MemoryLayer"/>: takes pages, possibly the same one more than once, until it is sealed.</summary>
/// <remarks>
/// Pages are written to the file, not copied into a mapping of it: a write of a run costs one call, a mapping one fault for each new page.
/// </remarks>
internal sealed class LayerWriter : IDisposable
{
    private readonly DescriptorHandle _file;
    private readonly PageBitmap _stored;
    private readonly PageBitmap _zero;
    private StagingBuffer? _staging;
    private bool _sealed;

    internal LayerWriter(int pages)
    {
        _stored = new PageBitmap(pages);
        _zero = new PageBitmap(pages);
        _file = new DescriptorHandle(HostError.Check(
            Libc.MemfdCreate("unikraft-layer", Libc.MemfdCloseOnExec | Libc.MemfdAllowSealing),
            "Creating a memory layer"));
        try
        {
            HostError.Check(Libc.Truncate(_file, (long)pages << PageSize.Shift), "Sizing a memory layer");
        }
        catch
        {
            _file.Dispose();
            throw;
        }
    }

    /// <summary>The pages that the last <see cref="Stage"/> copied into its buffer.</summary>
    internal int Staged { get; private set; }

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
                Write(content[(start << PageSize.Shift)..(end << PageSize.Shift)], (long)(firstPage + start) << PageSize.Shift);
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
        HostError.Check(
            Libc.FileControl(_file, Libc.AddSeals, Libc.SealShrink | Libc.SealGrow | Libc.SealWrite | Libc.SealSeal),
            "Sealing a memory layer");
        MemoryLayer layer = new(_file, (long)_stored.Count() << PageSize.Shift, _stored);
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
            _file.Dispose();
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

    private unsafe void Write(ReadOnlySpan<byte> content, long offset)
    {
        fixed (byte* first = content)
        {
            int done = 0;
            while (done < content.Length)
            {
                nint written = Libc.WriteAt(_file, (nint)first + done, (nuint)(content.Length - done), offset + done);
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

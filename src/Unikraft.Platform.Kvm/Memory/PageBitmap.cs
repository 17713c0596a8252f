using System.Numerics;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>One bit for each page of guest memory, in the layout of KVM's dirty log.</summary>
internal sealed class PageBitmap
{
    internal const int BitsPerWord = 64;

    private readonly ulong[] _words;

    internal PageBitmap(int pages)
    {
        Pages = pages;
        _words = new ulong[(pages + BitsPerWord - 1) / BitsPerWord];
    }

    internal int Pages { get; }

    /// <summary>The words of a range of pages that begins at a multiple of <see cref="BitsPerWord"/>.</summary>
    internal Span<ulong> WordsOf(int firstPage, int pages) =>
        _words.AsSpan(firstPage / BitsPerWord, (pages + BitsPerWord - 1) / BitsPerWord);

    internal bool this[int page] => (_words[page / BitsPerWord] >> (page % BitsPerWord) & 1) != 0;

    /// <summary>Sets a bit. Safe against concurrent use with itself and <see cref="MoveTo"/>.</summary>
    internal void SetConcurrently(int page) => Interlocked.Or(ref _words[page / BitsPerWord], 1UL << page % BitsPerWord);

    /// <summary>Clears all bits and adds them to another bitmap. Safe against concurrent <see cref="SetConcurrently"/>.</summary>
    internal void MoveTo(PageBitmap target)
    {
        for (int i = 0; i < _words.Length; i++)
        {
            if (Volatile.Read(ref _words[i]) != 0)
            {
                target._words[i] |= Interlocked.Exchange(ref _words[i], 0);
            }
        }
    }

    internal void Set(int page) => _words[page / BitsPerWord] |= 1UL << page % BitsPerWord;

    internal void Clear(int page) => _words[page / BitsPerWord] &= ~(1UL << page % BitsPerWord);

    internal void Clear() => _words.AsSpan().Clear();

    internal void UnionWith(PageBitmap other)
    {
        for (int i = 0; i < _words.Length; i++)
        {
            _words[i] |= other._words[i];
        }
    }

    internal int Count()
    {
        int count = 0;
        foreach (ulong word in _words)
        {
            count += BitOperations.PopCount(word);
        }

        return count;
    }

    /// <summary>Whether no bit of a run is set.</summary>
    internal bool IsClear(int start, int length) => NextBit(start, invert: 0) >= start + length;

    /// <summary>Finds the next run of set bits. One that is longer than an extent may be comes in parts.</summary>
    /// <param name="from">Where to begin to look.</param>
    /// <param name="start">The first page of the run.</param>
    /// <param name="length">Its length, at least 1.</param>
    /// <returns>False when there is none any more.</returns>
    internal bool NextRun(int from, out int start, out int length)
    {
        start = NextBit(from, invert: 0);
        length = start < Pages ? Math.Min(NextBit(start, invert: ulong.MaxValue) - start, PageExtent.MaxLength) : 0;
        return length > 0;
    }

    private int NextBit(int from, ulong invert)
    {
        int word = from / BitsPerWord;
        if (from >= Pages)
        {
            return Pages;
        }

        ulong bits = (_words[word] ^ invert) & ulong.MaxValue << from % BitsPerWord;
        while (bits == 0)
        {
            if (++word == _words.Length)
            {
                return Pages;
            }

            bits = _words[word] ^ invert;
        }

        return Math.Min(Pages, word * BitsPerWord + BitOperations.TrailingZeroCount(bits));
    }
}

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>Which pages a layer holds, and where each lies when they are packed one after the other.</summary>
internal sealed class PageIndex
{
    private readonly PageRun[] _runs;
    private readonly int[] _positions;

    /// <param name="runs">The runs, by ascending page, without overlap.</param>
    internal PageIndex(PageRun[] runs)
    {
        _runs = runs;
        _positions = new int[runs.Length];
        for (int i = 0; i < runs.Length; i++)
        {
            _positions[i] = StoredPages;
            StoredPages += runs[i].Length;
        }
    }

    /// <summary>The runs, by ascending page. No two of them touch.</summary>
    internal ReadOnlySpan<PageRun> Runs => _runs;

    /// <summary>The number of pages in all runs.</summary>
    internal int StoredPages { get; }

    internal static PageIndex From(PageBitmap stored)
    {
        List<PageRun> runs = [];
        for (int from = 0; stored.NextRun(from, out int start, out int length); from = start + length)
        {
            // The bitmap parts long runs; packed, they are one again.
            if (runs.Count > 0 && runs[^1].End == start)
            {
                runs[^1] = runs[^1] with { Length = runs[^1].Length + length };
            }
            else
            {
                runs.Add(new PageRun(start, length));
            }
        }

        return new PageIndex([.. runs]);
    }

    /// <summary>Finds where pages that follow one another lie.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="pages">The number of pages.</param>
    /// <param name="position">The number of packed pages in front of the first one.</param>
    /// <returns>False when not all of them are held.</returns>
    internal bool TryFind(int page, int pages, out int position)
    {
        int low = 0;
        int high = _runs.Length;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            if (_runs[middle].End > page)
            {
                high = middle;
            }
            else
            {
                low = middle + 1;
            }
        }

        bool isHeld = low < _runs.Length && page >= _runs[low].Start && pages <= _runs[low].End - page;
        position = isHeld ? _positions[low] + page - _runs[low].Start : 0;
        return isHeld;
    }
}

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>Which pages a layer holds, and where each lies when they are packed.</summary>
internal sealed class PageIndex
{
    private readonly PageRun[] _runs;
    private readonly int[] _positions;

    /// <summary>Pages that are packed by ascending number.</summary>
    /// <param name="runs">The runs, by ascending page, no two of which touch.</param>
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

    private PageIndex(PageRun[] runs, int[] positions)
    {
        _runs = runs;
        _positions = positions;
        StoredPages = runs.Sum(static run => run.Length);
    }

    /// <summary>The runs, by ascending page. What follows one another in pages and in positions is one run.</summary>
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

    /// <summary>Pages that are packed in any order.</summary>
    /// <param name="stored">The pages.</param>
    /// <param name="positions">For each page of the guest, the number of packed pages in front of it. Those of pages not stored are not looked at.</param>
    internal static PageIndex From(PageBitmap stored, ReadOnlySpan<int> positions)
    {
        List<PageRun> runs = [];
        List<int> starts = [];
        for (int from = 0; stored.NextRun(from, out int start, out int length); from = start + length)
        {
            for (int page = start; page < start + length; page++)
            {
                if (runs.Count > 0 && runs[^1].End == page && starts[^1] + runs[^1].Length == positions[page])
                {
                    runs[^1] = runs[^1] with { Length = runs[^1].Length + 1 };
                }
                else
                {
                    runs.Add(new PageRun(page, 1));
                    starts.Add(positions[page]);
                }
            }
        }

        return new PageIndex([.. runs], [.. starts]);
    }

    /// <summary>Finds where pages that follow one another lie, one behind the other.</summary>
    /// <param name="page">The first page.</param>
    /// <param name="pages">The number of pages.</param>
    /// <param name="position">The number of packed pages in front of the first one.</param>
    /// <returns>False when not all of them are held, or not together.</returns>
    internal bool TryFind(int page, int pages, out int position) => CountTogether(page, out position) >= pages;

    /// <summary>Finds where a page lies, and how many of those that follow it lie right behind it.</summary>
    /// <returns>The number of pages, the first one included; 0 when it is not held.</returns>
    internal int CountTogether(int page, out int position)
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

        if (low == _runs.Length || page < _runs[low].Start)
        {
            position = 0;
            return 0;
        }

        position = _positions[low] + page - _runs[low].Start;
        return _runs[low].End - page;
    }
}

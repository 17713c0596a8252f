namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// How to bring a chain of layers into memory: what to map, and what to copy, partly on top of that. Short runs that lie scattered in a long one of another
/// layer do not part it: one mapping and some copies cost less than as many mappings.
/// </summary>
internal sealed class LoadPlan
{
    /// <summary>
    /// A zero page that is read through a mapping takes a page of the layer, once for all guests, which one in memory that was never written does not.
    /// </summary>
    internal const int MaxZeroes = 64;

    private readonly PageExtent[] _mapped;
    private readonly PageExtent[] _copied;

    private LoadPlan(PageExtent[] mapped, PageExtent[] copied)
    {
        _mapped = mapped;
        _copied = copied;
        foreach (PageExtent extent in copied)
        {
            CopiedPages += extent.Length;
        }
    }

    /// <summary>What to map, first of all, by ascending page and without overlap.</summary>
    internal ReadOnlySpan<PageExtent> Mapped => _mapped;

    /// <summary>What to copy then.</summary>
    internal ReadOnlySpan<PageExtent> Copied => _copied;

    /// <summary>The number of pages to copy.</summary>
    internal int CopiedPages { get; }

    /// <param name="extents">Where every page comes from.</param>
    /// <param name="threshold">The fewest pages that are worth a mapping of their own.</param>
    /// <param name="isWhole">Whether a page in none of the extents is zero; otherwise it is to stay what it is.</param>
    internal static LoadPlan Make(ReadOnlySpan<PageExtent> extents, int threshold, bool isWhole = true)
    {
        List<PageExtent> mapped = [];
        List<PageExtent> copied = [];
        bool canExtend = false;
        int end = 0;
        foreach (PageExtent extent in extents)
        {
            PageExtent rest = extent;
            while (rest.Length > 0)
            {
                PageExtent piece = rest with { Length = extent.Layer.CountTogether(rest.Start, rest.Length) };
                rest = rest with { Start = piece.End, Length = rest.Length - piece.Length };

                // Zero pages part a mapping where it would bring what its layer had there before, or too much room for what nobody may ever read.
                canExtend = canExtend && (piece.Start == end || (isWhole && IsZeroIn(mapped[^1].Layer, end, piece.Start - end)));
                end = piece.End;
                if (canExtend && TryExtend(mapped[^1], piece, out PageExtent longer))
                {
                    mapped[^1] = longer;
                }
                else if (piece.Length >= threshold)
                {
                    mapped.Add(piece);
                    canExtend = true;
                }
                else
                {
                    copied.Add(piece);
                }
            }
        }

        return new LoadPlan([.. mapped], [.. copied]);
    }

    private static bool IsZeroIn(MemoryLayer layer, int page, int pages) =>
        pages <= MaxZeroes && layer.IsZero(page, pages);

    private static bool TryExtend(PageExtent mapped, PageExtent next, out PageExtent longer)
    {
        longer = mapped with { Length = next.End - mapped.Start };
        return mapped.Layer == next.Layer
            && longer.Length <= PageExtent.MaxLength
            && mapped.Layer.CanSpan(mapped.Start, longer.Length);
    }
}

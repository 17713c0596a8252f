using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Tests.Memory;

public sealed class LoadPlanTests
{
    private const int Pages = 1024;
    private const int Threshold = 16;

    [Fact]
    public void Pages_that_lie_scattered_in_a_layer_do_not_part_it()
    {
        using PageMap bottom = Store(null, Enumerable.Range(0, Pages));
        using PageMap map = Store(bottom, [3, 100, 101, 500, 1023]);
        LoadPlan plan = LoadPlan.Make(map.Extents, Threshold);

        PageExtent mapped = Assert.Single(plan.Mapped.ToArray());
        Assert.Equal((4, 1019), (mapped.Start, mapped.Length));
        Assert.Equal([(0, 3), (3, 1), (100, 2), (500, 1), (1023, 1)], Runs(plan.Copied));
        Assert.Equal(8, plan.CopiedPages);
    }

    [Fact]
    public void A_long_run_of_another_layer_is_mapped()
    {
        using PageMap bottom = Store(null, Enumerable.Range(0, Pages));
        using PageMap map = Store(bottom, Enumerable.Range(200, Threshold));
        LoadPlan plan = LoadPlan.Make(map.Extents, Threshold);

        Assert.Equal([(0, 200), (200, Threshold), (200 + Threshold, Pages - 200 - Threshold)], Runs(plan.Mapped));
        Assert.Empty(plan.Copied.ToArray());
    }

    /// <summary>The layer below holds content where the memory is zero by now.</summary>
    [Fact]
    public void Pages_that_became_zero_part_a_mapping()
    {
        using PageMap bottom = Store(null, Enumerable.Range(0, 400).Concat(Enumerable.Range(500, 524)));
        using PageMap zeroed = Store(bottom, [], zeroes: [600]);
        using PageMap map = Store(zeroed, Enumerable.Range(400, 100).Where(page => page % 2 == 0));
        LoadPlan plan = LoadPlan.Make(map.Extents, Threshold);

        Assert.Equal([(0, 600), (601, 423)], Runs(plan.Mapped));
        Assert.Equal(50, plan.CopiedPages);
    }

    [Theory]
    [InlineData(64, 1)]
    [InlineData(65, 2)]
    public void A_mapping_spans_a_few_pages_that_were_always_zero(int zeroes, int mappings)
    {
        using PageMap map = Store(null, Enumerable.Range(0, 100).Concat(Enumerable.Range(100 + zeroes, 100)));

        Assert.Equal(mappings, LoadPlan.Make(map.Extents, Threshold).Mapped.Length);
    }

    [Fact]
    public void A_mapping_spans_pages_that_only_another_layer_holds()
    {
        using PageMap bottom = Store(null, Enumerable.Range(0, Pages).Where(page => page != 300));
        using PageMap map = Store(bottom, [300]);
        LoadPlan plan = LoadPlan.Make(map.Extents, Threshold);

        Assert.Equal([(0, Pages)], Runs(plan.Mapped));
        Assert.Equal([(300, 1)], Runs(plan.Copied));
    }

    [Fact]
    public void A_mapping_of_packed_pages_covers_only_what_follows_one_another()
    {
        MemoryLayer packed = new(
            new DescriptorHandle(-1),
            Guid.NewGuid(),
            new PageIndex([new PageRun(0, 300), new PageRun(301, Pages - 301)]),
            contentOffset: 0,
            freed: _ => { });
        PageExtent[] extents = [new(0, 300, packed), new(301, Pages - 301, packed)];

        Assert.Equal([(0, 300), (301, Pages - 301)], Runs(LoadPlan.Make(extents, Threshold).Mapped));
        packed.Release();
    }

    private static IEnumerable<(int Start, int Length)> Runs(ReadOnlySpan<PageExtent> extents) =>
        [.. extents.ToArray().Select(extent => (extent.Start, extent.Length))];

    private static PageMap Store(PageMap? parent, IEnumerable<int> pages, params int[] zeroes)
    {
        byte[] content = new byte[PageSize.Bytes];
        using LayerWriter writer = new(Pages);
        Array.ForEach(zeroes, page => writer.Store(page, content));
        content.AsSpan().Fill(1);
        foreach (int page in pages)
        {
            writer.Store(page, content);
        }

        return writer.Seal(parent);
    }
}

using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Tests.Memory;

public sealed class PageMapTests
{
    [Theory]
    [InlineData(1, 1)]
    [InlineData(7, 2)]
    [InlineData(64, 3)]
    [InlineData(300, 4)]
    [InlineData(5000, 5)]
    public void A_chain_of_layers_behaves_like_a_table_of_pages(int pages, int seed)
    {
        const int Depth = 64;
        const int Chains = 20;
        Random random = new(seed);
        for (int chain = 0; chain < Chains; chain++)
        {
            MemoryLayer?[] model = new MemoryLayer?[pages];
            PageMap? map = null;
            for (int depth = 1; depth <= Depth; depth++)
            {
                (PageBitmap stored, PageBitmap zero) = RandomPages(random, pages);
                MemoryLayer layer = NewLayer(depth);
                PageMap next = PageMap.Overlay(map, layer, stored, zero);
                layer.Release();
                map?.Dispose();
                map = next;
                for (int page = 0; page < pages; page++)
                {
                    model[page] = stored[page] ? layer : zero[page] ? null : model[page];
                }

                Assert.Equal(depth, map.Depth);
                Assert.Equal(depth, map.OwnBytes);
                AssertSame(model, map);
            }

            map!.Dispose();
        }
    }

    [Fact]
    public void Neighbours_of_one_layer_become_one_extent()
    {
        PageBitmap zero = new(100);
        PageBitmap even = new(100);
        PageBitmap odd = new(100);
        for (int page = 0; page < 100; page++)
        {
            (page % 2 == 0 ? even : odd).Set(page);
        }

        MemoryLayer layer = NewLayer(1);
        using PageMap half = PageMap.Overlay(null, layer, even, zero);
        using PageMap whole = PageMap.Overlay(half, layer, odd, zero);
        layer.Release();

        Assert.Equal(50, half.Extents.Length);
        PageExtent extent = Assert.Single(whole.Extents.ToArray());
        Assert.Equal((0, 100), (extent.Start, extent.Length));
    }

    [Fact]
    public void No_extent_is_longer_than_a_mapping_can_be()
    {
        const int Pages = PageExtent.MaxLength * 2 + 10;
        PageBitmap stored = new(Pages);
        stored.WordsOf(0, stored.Pages).Fill(ulong.MaxValue);
        MemoryLayer layer = NewLayer(1);
        using PageMap map = PageMap.Overlay(null, layer, stored, new PageBitmap(Pages));
        layer.Release();

        Assert.Equal([(0, PageExtent.MaxLength), (PageExtent.MaxLength, PageExtent.MaxLength), (2 * PageExtent.MaxLength, 10)],
            map.Extents.ToArray().Select(extent => (extent.Start, extent.Length)));
    }

    [Fact]
    public void A_layer_lives_until_its_last_map_is_gone()
    {
        PageBitmap stored = new(4);
        stored.Set(1);
        PageBitmap none = new(4);
        MemoryLayer bottom = NewLayer(1);
        PageMap first = PageMap.Overlay(null, bottom, stored, none);
        bottom.Release();
        MemoryLayer top = NewLayer(2);
        PageMap second = PageMap.Overlay(first, top, stored, none);
        top.Release();
        PageMap shared = first.Share();

        // The second one hides all of the bottom layer, and does not hold it.
        first.Dispose();
        first.Dispose();
        AssertAlive(bottom);
        shared.Dispose();
        Assert.Throws<ObjectDisposedException>(bottom.AddReference);
        AssertAlive(top);
        second.Dispose();
        Assert.Throws<ObjectDisposedException>(top.AddReference);
    }

    [Fact]
    public void A_layer_that_is_gone_stays_gone_however_often_it_is_asked_for()
    {
        MemoryLayer layer = NewLayer(1);
        layer.Release();
        for (int i = 0; i < 5; i++)
        {
            Assert.Throws<ObjectDisposedException>(layer.AddReference);
        }
    }

    [Fact]
    public void A_map_that_is_gone_cannot_be_shared_and_leaves_the_other_layers_alone()
    {
        PageBitmap low = new(4);
        low.Set(0);
        PageBitmap high = new(4);
        high.Set(3);
        PageBitmap none = new(4);
        MemoryLayer living = NewLayer(1);
        MemoryLayer dying = NewLayer(2);
        PageMap bottom = PageMap.Overlay(null, living, low, none);
        PageMap map = PageMap.Overlay(bottom, dying, high, none);
        dying.Release();
        map.Dispose();
        for (int i = 0; i < 5; i++)
        {
            Assert.Throws<ObjectDisposedException>(map.Share);
        }

        bottom.Dispose();
        AssertAlive(living);
        living.Release();
        Assert.Throws<ObjectDisposedException>(living.AddReference);
    }

    [Fact]
    public void An_overlay_that_fails_does_not_keep_the_map_below()
    {
        PageBitmap one = new(4);
        one.Set(0);
        MemoryLayer living = NewLayer(1);
        MemoryLayer dead = NewLayer(2);
        dead.Release();
        PageMap bottom = PageMap.Overlay(null, living, one, new PageBitmap(4));
        bool isUnused = false;
        using PageMap watcher = bottom.Watch(() => isUnused = true);
        Assert.Throws<ObjectDisposedException>(() => PageMap.Overlay(bottom, dead, one, new PageBitmap(4)));
        bottom.Dispose();

        Assert.True(isUnused);
        living.Release();
    }

    [Fact]
    public void An_overlay_that_changes_nothing_is_the_memory_that_it_lies_on()
    {
        PageBitmap one = new(4);
        one.Set(0);
        PageBitmap none = new(4);
        MemoryLayer first = NewLayer(1);
        MemoryLayer empty = NewLayer(0);
        MemoryLayer zeroes = NewLayer(0);
        using PageMap bottom = PageMap.Overlay(null, first, one, none);
        using PageMap unchanged = PageMap.Overlay(bottom, empty, none, none);
        using PageMap changed = PageMap.Overlay(unchanged, zeroes, none, one);
        Assert.All([first, empty, zeroes], static layer => layer.Release());

        Assert.Same(bottom.Identity, unchanged.Identity);
        Assert.Equal((2, 0), (unchanged.Depth, unchanged.OwnBytes));
        Assert.NotSame(unchanged.Identity, changed.Identity);
        Assert.Same(unchanged.Identity, changed.ParentIdentity);
    }

    [Fact]
    public void A_use_that_goes_on_with_another_form_is_not_the_end_of_the_memory()
    {
        PageBitmap stored = new(4);
        stored.Set(1);
        stored.Set(3);
        MemoryLayer layer = NewLayer(1);
        MemoryLayer fold = NewLayer(1);
        PageMap map = PageMap.Overlay(null, layer, stored, new PageBitmap(4));
        PageMap folded = PageMap.Overlay(null, fold, stored, new PageBitmap(4));
        layer.Release();
        fold.Release();
        int ends = 0;
        PageMap? watcher = null;
        void End()
        {
            ends++;
            watcher!.Unwatch(End);
        }

        watcher = map.Watch(End);
        PageMap form = map.Rebase(map, folded, 2, 4);
        folded.Dispose();
        map.Dispose();
        Assert.Equal(0, ends);
        Assert.Equal([(1, layer), (3, fold)], form.Extents.ToArray().Select(extent => (extent.Start, extent.Layer)));
        Assert.False(watcher.IsSame(form));
        form.Dispose();

        Assert.Equal(1, ends);
        Assert.Throws<ObjectDisposedException>(layer.AddReference);
        Assert.Throws<ObjectDisposedException>(fold.AddReference);
    }

    [Fact]
    public async Task References_are_counted_concurrently()
    {
        MemoryLayer layer = NewLayer(1);
        await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Task.Run(() =>
        {
            for (int i = 0; i < 20_000; i++)
            {
                layer.AddReference();
                layer.Release();
            }
        })));
        AssertAlive(layer);
        layer.Release();
        Assert.Throws<ObjectDisposedException>(layer.AddReference);
    }

    private static void AssertAlive(MemoryLayer layer)
    {
        layer.AddReference();
        layer.Release();
    }

    /// <summary>A layer that is only counted, with no file behind it.</summary>
    private static MemoryLayer NewLayer(long bytes) => new(new DescriptorHandle(-1), bytes);

    private static (PageBitmap Stored, PageBitmap Zero) RandomPages(Random random, int pages)
    {
        PageBitmap stored = new(pages);
        PageBitmap zero = new(pages);
        int runs = random.Next(6);
        for (int i = 0; i < runs; i++)
        {
            int start = random.Next(pages);
            int length = random.Next(3) == 0 ? pages : random.Next(1, 20);
            bool store = random.Next(3) != 0;
            for (int page = start; page < Math.Min(pages, start + length); page++)
            {
                if (store)
                {
                    stored.Set(page);
                    zero.Clear(page);
                }
                else
                {
                    zero.Set(page);
                    stored.Clear(page);
                }
            }
        }

        return (stored, zero);
    }

    private static void AssertSame(MemoryLayer?[] model, PageMap map)
    {
        PageExtent[] extents = map.Extents.ToArray();
        int[] numbers = map.LayerNumbers.ToArray();
        Assert.Equal(extents.Select(static extent => extent.Layer), numbers.Select(number => map.Layers[number]));
        Assert.Equal(extents.Select(static extent => extent.Layer).Distinct(), map.Layers);
        MemoryLayer?[] actual = new MemoryLayer?[model.Length];
        int end = 0;
        MemoryLayer? previous = null;
        foreach (PageExtent extent in map.Extents)
        {
            Assert.True(extent.Start >= end && extent.Length > 0, "Extents overlap or are empty.");
            Assert.False(extent.Start == end && extent.Layer == previous, "Neighbours of one layer are two extents.");
            Array.Fill(actual, extent.Layer, extent.Start, extent.Length);
            (end, previous) = (extent.End, extent.Layer);
        }

        Assert.True(model.AsSpan().SequenceEqual(actual), "The map is not that of the model.");
    }
}

using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Memory;

public sealed class LayerWriterTests
{
    private const int Pages = 300;

    [Fact]
    public void Pages_of_zeroes_take_no_room()
    {
        using GuestMemory memory = NewMemory();
        memory.Write(5 * PageSize.Bytes + 100, 1);
        using LayerWriter writer = new(Pages);
        writer.Copy(memory, All());
        using PageMap map = writer.Seal(null);

        PageExtent extent = Assert.Single(map.Extents.ToArray());
        Assert.Equal((5, 1), (extent.Start, extent.Length));
        Assert.Equal(PageSize.Bytes, map.OwnBytes);
        Assert.Equal(1, map.Depth);
    }

    [Fact]
    public void Of_a_page_taken_twice_the_last_content_counts()
    {
        using GuestMemory memory = NewMemory();
        PageBitmap pages = Only(1, 2, 3);
        memory.Write(1 * PageSize.Bytes, 1);
        memory.Write(2 * PageSize.Bytes, 2);
        using LayerWriter writer = new(Pages);
        writer.Copy(memory, pages);

        memory.Write(1 * PageSize.Bytes, 100);
        memory.Write(2 * PageSize.Bytes, 0);
        memory.Write(3 * PageSize.Bytes, 300);
        writer.Copy(memory, pages);
        using PageMap map = writer.Seal(null);
        using GuestMemory copy = NewMemory();
        copy.Install(map);

        Assert.Equal((100, 0, 300), (copy.Read<int>(PageSize.Bytes), copy.Read<int>(2 * PageSize.Bytes), copy.Read<int>(3 * PageSize.Bytes)));
        Assert.Equal(2 * PageSize.Bytes, map.OwnBytes);
    }

    [Fact]
    public void A_page_that_became_zero_hides_the_layer_below()
    {
        using GuestMemory memory = NewMemory();
        memory.Write(7 * PageSize.Bytes, 7);
        memory.Write(8 * PageSize.Bytes, 8);
        using LayerWriter first = new(Pages);
        first.Copy(memory, All());
        using PageMap bottom = first.Seal(null);
        memory.Write(7 * PageSize.Bytes, 0);
        using LayerWriter second = new(Pages);
        second.Copy(memory, Only(7));
        using PageMap top = second.Seal(bottom);
        using GuestMemory copy = NewMemory();
        copy.Install(top);

        Assert.Equal((0, 8), (copy.Read<int>(7 * PageSize.Bytes), copy.Read<int>(8 * PageSize.Bytes)));
        Assert.Equal((0, 2), (top.OwnBytes, top.Depth));
    }

    [Fact]
    public void Chains_restore_random_memory_byte_for_byte()
    {
        Random random = new(11);
        using GuestMemory memory = NewMemory();
        PageMap? map = null;
        byte[] content = new byte[PageSize.Bytes];
        for (int depth = 0; depth < 64; depth++)
        {
            // Long runs are mapped, short ones copied: both occur.
            PageBitmap changed = new(Pages);
            for (int runs = random.Next(1, 6); runs > 0; runs--)
            {
                int start = random.Next(Pages);
                bool zero = random.Next(3) == 0;
                for (int page = start; page < Math.Min(Pages, start + random.Next(1, 40)); page++)
                {
                    random.NextBytes(content);
                    if (zero)
                    {
                        Array.Clear(content);
                    }

                    memory.Write((long)page << PageSize.Shift, content);
                    changed.Set(page);
                }
            }

            using LayerWriter writer = new(Pages);
            writer.Copy(memory, changed);
            PageMap next = writer.Seal(map);
            map?.Dispose();
            map = next;

            using GuestMemory copy = NewMemory();
            copy.Install(map);
            Assert.True(memory.Read(0, (int)memory.Size).SequenceEqual(copy.Read(0, (int)copy.Size)), $"depth {depth}");
            Assert.Equal(0, copy.WrittenByHost.Count());
        }

        map!.Dispose();
    }

    /// <summary>Whatever way it was brought there: mapped, put there by call, copied, or made zero.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Memory_that_was_prepared_with_the_chain_below_becomes_that_of_the_chain(int seed)
    {
        const int Many = 4000;
        Random random = new(seed);
        using GuestMemory memory = new((long)Many << PageSize.Shift);
        PageMap? below = null;
        byte[] content = new byte[PageSize.Bytes];
        int differences = 0;
        for (int depth = 0; depth < 40; depth++)
        {
            PageBitmap changed = new(Many);
            for (int runs = random.Next(1, depth == 0 ? 200 : 60); runs > 0; runs--)
            {
                int start = random.Next(Many);
                int length = random.Next(1, random.Next(8) == 0 ? 40 : 3);
                for (int page = start; page < Math.Min(Many, start + length); page++)
                {
                    random.NextBytes(content);
                    memory.Write((long)page << PageSize.Shift, random.Next(20) == 0 ? new byte[PageSize.Bytes] : content);
                    changed.Set(page);
                }
            }

            using LayerWriter writer = new(Many);
            writer.Copy(memory, changed);
            PageMap map = writer.Seal(below);
            if (below is not null && map.GetDifference(below.Identity) is not null)
            {
                using GuestMemory prepared = new((long)Many << PageSize.Shift);
                prepared.Prepare(below, written: random.Next(Many) << PageSize.Shift);
                prepared.Install(map);
                Assert.True(memory.Read(0, (int)memory.Size).SequenceEqual(prepared.Read(0, (int)prepared.Size)), $"depth {depth}");
                Assert.Equal(0, prepared.WrittenByHost.Count());
                differences++;
            }

            using GuestMemory same = new((long)Many << PageSize.Shift);
            same.Prepare(map, written: 0);
            same.Install(map);
            Assert.True(memory.Read(0, (int)memory.Size).SequenceEqual(same.Read(0, (int)same.Size)), $"depth {depth}");
            below?.Dispose();
            below = map;
        }

        Assert.True(differences > 30, $"{differences} differences");
        below!.Dispose();
    }

    [Fact]
    public void Memory_that_was_prepared_with_another_chain_is_refused()
    {
        using GuestMemory memory = NewMemory();
        memory.Write(PageSize.Bytes, 1);
        PageMap[] maps = [.. Enumerable.Range(0, 2).Select(_ =>
        {
            using LayerWriter writer = new(Pages);
            writer.Copy(memory, All());
            return writer.Seal(null);
        })];
        using GuestMemory prepared = NewMemory();
        prepared.Prepare(maps[0], written: 0);

        Assert.Throws<InvalidOperationException>(() => prepared.Install(maps[1]));
        Assert.All(maps, static map => map.Dispose());
    }

    [Fact]
    public void What_a_copy_writes_reaches_no_one_else()
    {
        using GuestMemory memory = NewMemory();
        for (int page = 0; page < Pages; page++)
        {
            memory.Write((long)page << PageSize.Shift, page + 1);
        }

        using LayerWriter writer = new(Pages);
        writer.Copy(memory, All());
        PageMap map = writer.Seal(null);
        using GuestMemory one = NewMemory();
        using GuestMemory two = NewMemory();
        one.Install(map);
        two.Install(map);
        map.Dispose();
        for (int page = 0; page < Pages; page += 3)
        {
            one.Write((long)page << PageSize.Shift, -1);
        }

        for (int page = 0; page < Pages; page++)
        {
            Assert.Equal(page + 1, two.Read<int>((long)page << PageSize.Shift));
            Assert.Equal(page + 1, memory.Read<int>((long)page << PageSize.Shift));
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(40)]
    [InlineData(Pages)]
    public void Staged_pages_are_those_of_the_moment_whether_they_fit_or_not(int capacity)
    {
        Random random = new(capacity);
        using GuestMemory memory = NewMemory();
        using StagingBuffer buffer = new(capacity);
        PageBitmap changed = new(Pages);
        byte[] content = new byte[PageSize.Bytes];
        for (int page = 0; page < Pages; page++)
        {
            random.NextBytes(content);
            if (random.Next(3) == 0)
            {
                Array.Clear(content);
            }

            if (random.Next(4) != 0)
            {
                memory.Write((long)page << PageSize.Shift, content);
                changed.Set(page);
            }
        }

        byte[] moment = memory.Read(0, (int)memory.Size).ToArray();
        PageBitmap untouched = new(Pages);
        using LayerWriter writer = new(Pages);
        writer.Copy(memory, All());
        writer.Stage(memory, changed, buffer);
        for (int page = 0; page < Pages; page++)
        {
            if (random.Next(3) == 0)
            {
                untouched.Set(page);
            }
            else
            {
                int offset = random.Next(PageSize.Bytes);
                long address = ((long)page << PageSize.Shift) + offset;
                memory.Write(address, (byte)~memory.Read<byte>(address));
            }
        }

        PageBitmap noted = new(Pages);
        writer.FlushStaged(memory, changed, noted);
        using PageMap map = writer.Seal(null);
        using GuestMemory copy = NewMemory();
        copy.Install(map);

        Assert.True(moment.AsSpan().SequenceEqual(copy.Read(0, moment.Length)));
        int staged = 0;
        for (int page = 0; page < Pages; page++)
        {
            bool isStaged = changed[page] && staged++ < buffer.Capacity;
            Assert.Equal(changed[page] && !(isStaged && untouched[page]), noted[page]);
        }
    }

    [Fact]
    public void A_folded_chain_holds_the_same_memory_in_one_layer()
    {
        Random random = new(5);
        using GuestMemory memory = NewMemory();
        PageMap? map = null;
        for (int depth = 0; depth < 30; depth++)
        {
            PageBitmap changed = new(Pages);
            for (int i = 0; i < 40; i++)
            {
                int page = random.Next(Pages);
                memory.Write((long)page << PageSize.Shift, random.Next(4) == 0 ? 0 : depth);
                changed.Set(page);
            }

            using LayerWriter writer = new(Pages);
            writer.Copy(memory, changed);
            PageMap next = writer.Seal(map);
            map?.Dispose();
            map = next;
        }

        using PageMap folded = map!.Fold(Pages, 0, Pages);
        map.Dispose();
        using GuestMemory copy = NewMemory();
        copy.Install(folded);

        Assert.True(memory.Read(0, (int)memory.Size).SequenceEqual(copy.Read(0, (int)copy.Size)));
        Assert.Single(folded.Extents.ToArray().Select(extent => extent.Layer).Distinct());
    }

    /// <summary>A guest that snapshots are taken of while parts are folded: each form is the same memory, and each difference still leads to it.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void A_chain_of_which_parts_are_folded_holds_the_same_memory(int seed)
    {
        const int Many = 3000;
        Random random = new(seed);
        using GuestMemory memory = new((long)Many << PageSize.Shift);
        using GuestMemory below = new((long)Many << PageSize.Shift);
        using SharedPageMap present = new(null);
        PageMap? before = null;
        byte[] content = new byte[PageSize.Bytes];
        int differences = 0;
        for (int depth = 0; depth < 40; depth++)
        {
            PageBitmap changed = new(Many);
            for (int i = depth == 0 ? Many / 2 : 50; i > 0; i--)
            {
                int page = random.Next(Many);
                random.NextBytes(content);
                memory.Write((long)page << PageSize.Shift, random.Next(20) == 0 ? new byte[PageSize.Bytes] : content);
                changed.Set(page);
            }

            using LayerWriter writer = new(Many);
            writer.Copy(memory, changed);
            using PageMap taken = present.Overlay(writer);
            using SharedPageMap snapshot = new(taken.Share());
            for (int parts = random.Next(4); parts > 0; parts--)
            {
                // What is folded is older than the newest layer now and then.
                using PageMap folding = before is not null && random.Next(2) == 0 ? before.Share() : present.Share();
                int from = random.Next(Many - 1);
                int to = random.Next(from + 1, Many + 1);
                if (folding.Within(from, to).IsEmpty)
                {
                    continue;
                }

                using PageMap folded = folding.Fold(Many, from, to);
                using PageMap rebased = folding.Rebase(folding, folded, from, to);
                Assert.Same(folding.Identity, rebased.Identity);
                snapshot.Adopt(rebased);
                present.Rebase(folding, folded, from, to);
                if (before is not null && before.Identity == rebased.Identity)
                {
                    before.Dispose();
                    before = rebased.Share();
                }
            }

            using PageMap form = snapshot.Share();
            using PageMap now = present.Share();
            Assert.All([taken, form, now], map =>
            {
                Assert.Same(taken.Identity, map.Identity);
                using GuestMemory copy = new((long)Many << PageSize.Shift);
                copy.Install(map);
                Assert.True(memory.Read(0, (int)memory.Size).SequenceEqual(copy.Read(0, (int)copy.Size)), $"depth {depth}");
                if (before is not null && map.GetDifference(before.Identity) is not null)
                {
                    using GuestMemory prepared = new((long)Many << PageSize.Shift);
                    prepared.Prepare(before, written: 0);
                    prepared.Install(map);
                    Assert.True(memory.Read(0, (int)memory.Size).SequenceEqual(prepared.Read(0, (int)prepared.Size)), $"difference at depth {depth}");
                    differences++;
                }
            });
            before?.Dispose();
            before = now.Share();
        }

        before!.Dispose();
        Assert.True(differences > 60, $"{differences} differences");
    }

    [Fact]
    public void What_is_worth_folding_is_what_a_load_would_not_copy_afterwards()
    {
        const int Many = 1 << 15;
        using GuestMemory memory = new((long)Many << PageSize.Shift);
        PageBitmap first = new(Many);
        for (int page = 0; page < Many / 2; page++)
        {
            memory.Write((long)page << PageSize.Shift, 1);
            first.Set(page);
        }

        using LayerWriter writer = new(Many);
        writer.Copy(memory, first);
        using PageMap bottom = writer.Seal(null);
        _ = FoldPart.Find(bottom, Many, out int nothing);

        // 40 pages that part what lies together in the second part, 20 in the first, and 100 that lie alone among zeroes wherever they come from.
        PageBitmap second = new(Many);
        for (int i = 0; i < 160; i++)
        {
            int page = i < 40 ? 5000 + 20 * i : i < 60 ? 100 + 20 * i : Many / 2 + 100 * i;
            memory.Write((long)page << PageSize.Shift, 2);
            second.Set(page);
        }

        using LayerWriter scattered = new(Many);
        scattered.Copy(memory, second);
        using PageMap map = scattered.Seal(bottom);
        FoldPart part = FoldPart.Find(map, Many, out int gain);
        using PageMap folded = map.Fold(Many, part.From, part.To);
        using PageMap rebased = map.Rebase(map, folded, part.From, part.To);
        FoldPart next = FoldPart.Find(rebased, Many, out int left);

        Assert.Equal((0, 60, 20), (nothing, gain, left));
        Assert.Equal((4096, 8192, 0, 4096), (part.From, part.To, next.From, next.To));
        Assert.Equal(160, map.Plan.CopiedPages);
        Assert.Equal(120, rebased.Plan.CopiedPages);
    }

    private static GuestMemory NewMemory() => new((long)Pages << PageSize.Shift);

    private static PageBitmap All()
    {
        PageBitmap pages = new(Pages);
        for (int page = 0; page < Pages; page++)
        {
            pages.Set(page);
        }

        return pages;
    }

    private static PageBitmap Only(params int[] numbers)
    {
        PageBitmap pages = new(Pages);
        foreach (int page in numbers)
        {
            pages.Set(page);
        }

        return pages;
    }
}

using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Tests.Memory;

public sealed class PageBitmapTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(63)]
    [InlineData(64)]
    [InlineData(65)]
    [InlineData(128)]
    [InlineData(1000)]
    public void It_behaves_like_a_set_of_numbers(int pages)
    {
        Random random = new(pages);
        PageBitmap bitmap = new(pages);
        PageBitmap other = new(pages);
        HashSet<int> model = [];
        HashSet<int> otherModel = [];
        for (int round = 0; round < 20_000; round++)
        {
            int page = random.Next(pages);
            switch (random.Next(12))
            {
                case 0 or 1 or 2:
                    bitmap.Set(page);
                    model.Add(page);
                    break;
                case 3 or 4:
                    bitmap.Clear(page);
                    model.Remove(page);
                    break;
                case 5 or 6:
                    bitmap.SetConcurrently(page);
                    model.Add(page);
                    break;
                case 7 or 8:
                    other.Set(page);
                    otherModel.Add(page);
                    break;
                case 9 when random.Next(20) == 0:
                    bitmap.UnionWith(other);
                    model.UnionWith(otherModel);
                    break;
                case 10 when random.Next(20) == 0:
                    other.MoveTo(bitmap);
                    model.UnionWith(otherModel);
                    otherModel.Clear();
                    break;
                case 11 when random.Next(100) == 0:
                    bitmap.Clear();
                    model.Clear();
                    break;
            }

            if (round % 50 == 0)
            {
                AssertSame(model, bitmap);
                AssertSame(otherModel, other);
            }
        }
    }

    [Fact]
    public void Full_words_give_one_run_that_ends_with_the_pages()
    {
        PageBitmap bitmap = new(200);
        bitmap.WordsOf(0, bitmap.Pages).Fill(ulong.MaxValue);
        Assert.True(bitmap.NextRun(0, out int start, out int length));
        Assert.Equal((0, 200), (start, length));
        Assert.True(bitmap.NextRun(199, out start, out length));
        Assert.Equal((199, 1), (start, length));
        Assert.False(bitmap.NextRun(200, out _, out _));
    }

    [Fact]
    public async Task No_bit_set_concurrently_is_lost()
    {
        const int Pages = 64 * 100;
        PageBitmap source = new(Pages);
        PageBitmap seen = new(Pages);
        using CancellationTokenSource done = new();
        Task collector = Task.Run(() =>
        {
            while (!done.IsCancellationRequested)
            {
                source.MoveTo(seen);
            }

            source.MoveTo(seen);
        });
        await Task.WhenAll(Enumerable.Range(0, 4).Select(part => Task.Run(() =>
        {
            for (int page = part; page < Pages; page += 4)
            {
                source.SetConcurrently(page);
            }
        })));
        await done.CancelAsync();
        await collector;

        Assert.Equal(Pages, seen.Count());
        Assert.Equal(0, source.Count());
    }

    private static void AssertSame(HashSet<int> model, PageBitmap bitmap)
    {
        Assert.Equal(model.Count, bitmap.Count());
        List<int> found = [];
        for (int from = 0; bitmap.NextRun(from, out int start, out int length); from = start + length)
        {
            // A run is as long as it can be.
            Assert.False(start + length < bitmap.Pages && bitmap[start + length]);
            Assert.False(start > from && bitmap[start - 1]);
            found.AddRange(Enumerable.Range(start, length));
        }

        Assert.Equal(model.Order(), found);
        Assert.All(found, page => Assert.True(bitmap[page]));
    }
}

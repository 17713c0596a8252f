using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Memory;

public sealed class LayerSheetTests : IAsyncLifetime
{
    private const int Pages = 4096;

    private readonly BackgroundWork _background = new();

    /// <summary>Its time stands still: nothing is made ready, and nothing trimmed.</summary>
    private readonly SheetPool _sheets;
    private readonly SheetPool _ready;

    public LayerSheetTests()
    {
        _sheets = new SheetPool(_background, new ManualTimeProvider(), NullLogger.Instance, TimeSpan.FromMilliseconds(1));
        _ready = new SheetPool(_background, TimeProvider.System, NullLogger.Instance, TimeSpan.Zero);
    }

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        await _background.DisposeAsync();
        _sheets.Dispose();
        _ready.Dispose();
    }

    /// <summary>Rounds that come back to the same pages, in any order, some of them zero by then, and more of them than were expected.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Chains_of_packed_layers_restore_random_memory_byte_for_byte(int seed)
    {
        Random random = new(seed);
        using GuestMemory memory = NewMemory();
        PageMap? map = null;
        for (int depth = 0; depth < 40; depth++)
        {
            using LayerWriter writer = new(Pages, _sheets);
            writer.Expect(random.Next(128, 200));
            for (int round = random.Next(1, 4); round > 0; round--)
            {
                writer.Copy(memory, Change(memory, random));
            }

            PageMap next = writer.Seal(map);
            map?.Dispose();
            map = next;
            using GuestMemory copy = NewMemory();
            copy.Install(map);
            Assert.True(memory.Read(0, (int)memory.Size).SequenceEqual(copy.Read(0, (int)copy.Size)), $"depth {depth}");
        }

        using PageMap folded = map!.Fold(Pages, 0, Pages);
        map.Dispose();
        using GuestMemory unfolded = NewMemory();
        unfolded.Install(folded);
        Assert.True(memory.Read(0, (int)memory.Size).SequenceEqual(unfolded.Read(0, (int)unfolded.Size)));
    }

    [Fact]
    public void Pages_that_lie_apart_are_not_mapped_together()
    {
        byte[] page = new byte[PageSize.Bytes];
        page.AsSpan().Fill(7);
        using LayerWriter writer = new(Pages, _sheets);
        writer.Expect(128);
        foreach (int number in Enumerable.Range(120, 20).Concat(Enumerable.Range(100, 20)))
        {
            writer.Store(number, page);
        }

        using PageMap map = writer.Seal(null);
        Assert.Equal((100, 40), (Assert.Single(map.Extents.ToArray()).Start, map.Extents[0].Length));
        Assert.Equal([(100, 20), (120, 20)], map.Plan.Mapped.ToArray().Select(extent => (extent.Start, extent.Length)));
        Assert.Equal([new PageRun(100, 40)], map.Extents[0].Layer.GetIndex().Runs.ToArray());
    }

    [Theory]
    [InlineData(Pages / 8 + 1)]
    [InlineData(127)]
    public void Many_and_few_pages_are_not_packed(int expected)
    {
        byte[] page = new byte[PageSize.Bytes];
        page.AsSpan().Fill(7);
        using LayerWriter writer = new(Pages, _sheets);
        writer.Expect(expected);
        writer.Store(3, page);
        using PageMap map = writer.Seal(null);

        Assert.True(map.Extents[0].Layer.GetPresent(3 << PageSize.Shift, PageSize.Bytes).IsEmpty);
        Assert.True(_sheets.Refilled.IsCompletedSuccessfully);
    }

    [Fact]
    public async Task A_sheet_keeps_only_what_its_layer_uses()
    {
        byte[] page = new byte[PageSize.Bytes];
        page.AsSpan().Fill(7);
        using LayerSheet sheet = LayerSheet.TryMake(100)!;
        sheet.Slice(0, 1).Fill(1);
        PageBitmap stored = new(Pages);
        stored.Set(9);
        MemoryLayer layer = new(sheet, stored, PageIndex.From(stored, new int[Pages]));
        _ready.TrimLater(layer, sheet, used: 1);
        await _background.WhenDone();

        using FileStream file = new(sheet.File.DangerousGetHandle().ToString("'/proc/self/fd/'0", null), FileMode.Open, FileAccess.Read);
        Assert.Equal(PageSize.Bytes, file.Length);
        Assert.Equal(1, layer.GetPresent(9 << PageSize.Shift, PageSize.Bytes)[100]);
        layer.Release();
    }

    [Fact]
    public async Task Sheets_are_made_ready_as_large_as_the_last_one_that_was_taken()
    {
        using LayerSheet first = _ready.Rent(2000)!;
        await _ready.Refilled;
        using LayerSheet second = _ready.Rent(1500)!;

        Assert.Equal((2000, 2000), (first.Capacity, second.Capacity));
    }

    [Fact]
    public void When_mappings_are_short_there_is_no_sheet()
    {
        MappingBudget budget = new(4);
        using LayerSheet? one = LayerSheet.TryMake(1, budget);
        LayerSheet? two = LayerSheet.TryMake(1, budget);

        Assert.NotNull(two);
        Assert.Null(LayerSheet.TryMake(1, budget));
        two.Dispose();
        Assert.Equal(3, budget.Left);
    }

    /// <summary>A page cannot be put where there is one already: it is copied then.</summary>
    [Fact]
    public void Memory_that_was_touched_before_is_filled_all_the_same()
    {
        byte[] page = new byte[PageSize.Bytes];
        using LayerWriter writer = new(Pages, _sheets);
        writer.Expect(128);
        for (int number = 0; number < 200; number += 2)
        {
            page.AsSpan().Fill((byte)number);
            page[0] = 1;
            writer.Store(number, page);
        }

        using PageMap map = writer.Seal(null);
        using GuestMemory memory = NewMemory();
        memory.Write(100 << PageSize.Shift, 0L);
        memory.Install(map);
        for (int number = 0; number < 200; number++)
        {
            Assert.Equal(number % 2 == 0 ? number : 0, memory.Read<byte>(((long)number << PageSize.Shift) + 1));
        }
    }

    private static GuestMemory NewMemory() => new((long)Pages << PageSize.Shift);

    private static PageBitmap Change(GuestMemory memory, Random random)
    {
        byte[] content = new byte[PageSize.Bytes];
        PageBitmap changed = new(Pages);
        for (int runs = random.Next(1, 30); runs > 0; runs--)
        {
            int start = random.Next(Pages);
            int length = random.Next(4) == 0 ? random.Next(1, 40) : 1;
            bool isZero = random.Next(4) == 0;
            for (int page = start; page < Math.Min(Pages, start + length); page++)
            {
                random.NextBytes(content);
                memory.Write((long)page << PageSize.Shift, isZero ? new byte[PageSize.Bytes] : content);
                changed.Set(page);
            }
        }

        return changed;
    }
}

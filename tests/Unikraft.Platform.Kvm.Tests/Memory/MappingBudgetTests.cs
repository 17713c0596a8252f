using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Tests.Memory;

public sealed class MappingBudgetTests
{
    private const int Pages = 4096;

    [Fact]
    public void However_many_guests_there_are_the_limit_is_kept()
    {
        MappingBudget budget = new(10_000);
        int taken = 0;
        for (int guest = 0; guest < 10_000; guest++)
        {
            taken += budget.Take(4096);
        }

        Assert.InRange(taken, 9_900, 10_000);
        Assert.Equal(10_000 - taken, budget.Left);
        Assert.Equal(0, budget.Take(1));
        budget.Return(taken);
        Assert.Equal(10_000, budget.Left);
    }

    [Fact]
    public void Concurrent_guests_share_it()
    {
        MappingBudget budget = new(1 << 20);
        Parallel.For(0, 10_000, _ => budget.Return(budget.Take(100)));

        Assert.Equal(1 << 20, budget.Left);
    }

    /// <summary>Every second run is stored, and so far from the next that each takes mappings of its own.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(8)]
    [InlineData(800)]
    [InlineData(1 << 20)]
    public void Memory_is_the_same_with_few_mappings_and_with_many(int limit)
    {
        const int Run = 5 * GuestMemory.MapThreshold;
        MappingBudget budget = new(limit);
        byte[] content = new byte[Run << PageSize.Shift];
        using LayerWriter writer = new(Pages);
        for (int page = 0; page < Pages; page += 2 * Run)
        {
            content.AsSpan().Fill((byte)(1 + page / Run));
            writer.Store(page, content);
        }

        using PageMap map = writer.Seal(null);
        GuestMemory memory = new((long)Pages << PageSize.Shift, budget: budget);
        using (memory)
        {
            memory.Install(map);
            Assert.InRange(budget.Left, limit - limit / 8, limit);
            for (int page = 0; page < Pages; page++)
            {
                bool isStored = page / Run % 2 == 0;
                byte expected = isStored ? (byte)(1 + page / (2 * Run) * 2) : (byte)0;
                Assert.True(!memory.PageRun(page, 1).ContainsAnyExcept(expected), $"page {page}");
            }
        }

        Assert.Equal(limit, budget.Left);
    }
}

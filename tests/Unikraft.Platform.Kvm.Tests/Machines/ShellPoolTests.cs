using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>Machines are kept ready for the shapes that are asked for, and not for others.</summary>
[RequiresKvm]
public sealed class ShellPoolTests : IAsyncLifetime
{
    private const int Size = 3;

    private static readonly MachineShape Small = new(16 << 20, Vcpus: 1);
    private static readonly TimeSpan Watchdog = TestKit.Patience.For(TimeSpan.FromSeconds(30));

    private readonly Reclaimer _reclaimer = new(NullLogger.Instance);
    private KvmDevice? _device;

    public Task InitializeAsync()
    {
        _device = KvmProbe.Check().IsUsable ? KvmDevice.Open() : null;
        return Task.CompletedTask;
    }

    public async Task DisposeAsync()
    {
        await _reclaimer.DisposeAsync();
        _device?.Dispose();
    }

    [ContractFact]
    public async Task The_second_machine_of_a_shape_is_ready()
    {
        await using ShellPool pool = NewPool(Size);
        await using MachineShell first = pool.Rent(Small);
        await pool.Refilled.WaitAsync(Watchdog);

        Assert.Equal(Size, pool.CountReady(Small));
        await using MachineShell second = pool.Rent(Small);

        Assert.NotSame(first, second);
        Assert.True(second.Vm.IsCompletedSuccessfully);
        Assert.True(second.AttachAsync().IsCompletedSuccessfully);
        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal(Size, pool.CountReady(Small));
    }

    [ContractFact]
    public async Task Replacements_wait_until_the_machine_that_was_taken_is_under_way()
    {
        TimeSpan delay = TimeSpan.FromMilliseconds(3);
        ManualTimeProvider time = new();
        await using ShellPool pool = new(_device!, Size, delay, _reclaimer, time, NullLogger.Instance);
        await using MachineShell first = pool.Rent(Small);
        await time.WaitForTimerAsync(delay).WaitAsync(Watchdog);
        Assert.Equal(0, pool.CountReady(Small));

        time.Advance(delay);
        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal(Size, pool.CountReady(Small));

        // The pool does not wait for the time when it is closed.
        await using MachineShell second = pool.Rent(Small);
    }

    [ContractFact]
    public async Task Once_all_are_taken_replacements_are_made_at_once()
    {
        TimeSpan delay = TimeSpan.FromMilliseconds(3);
        ManualTimeProvider time = new();
        await using ShellPool pool = new(_device!, Size, delay, _reclaimer, time, NullLogger.Instance);
        await using MachineShell first = pool.Rent(Small);
        await time.WaitForTimerAsync(delay).WaitAsync(Watchdog);

        // While the pool waits, and when it does not.
        await using MachineShell second = pool.Rent(Small);
        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal(Size, pool.CountReady(Small));
        for (int i = 0; i < Size; i++)
        {
            await using MachineShell ready = pool.Rent(Small);
        }

        await using MachineShell third = pool.Rent(Small);
        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal(Size, pool.CountReady(Small));
    }

    [ContractFact]
    public async Task A_shape_is_not_served_with_another_one()
    {
        await using ShellPool pool = NewPool(Size);
        await using MachineShell small = pool.Rent(Small);
        await pool.Refilled.WaitAsync(Watchdog);
        await using MachineShell large = pool.Rent(Small with { MemorySize = 64 << 20 });
        await using MachineShell wide = pool.Rent(Small with { Vcpus = 2 });

        Assert.Equal(Small.MemorySize, small.Memory.Size);
        Assert.Equal(64 << 20, large.Memory.Size);
        Assert.Equal(2, wide.Threads.Count);
        Assert.Equal(Size, pool.CountReady(Small));
    }

    [ContractFact]
    public async Task The_latest_four_shapes_are_kept()
    {
        await using ShellPool pool = NewPool(size: 1);
        MachineShape[] shapes = [.. Enumerable.Range(1, 6).Select(index => new MachineShape(index << 24, Vcpus: 1))];
        foreach (MachineShape shape in shapes)
        {
            await using MachineShell shell = pool.Rent(shape);
            await pool.Refilled.WaitAsync(Watchdog);
        }

        Assert.Equal([0, 0, 1, 1, 1, 1], shapes.Select(shape => pool.CountReady(shape)));
    }

    [ContractFact]
    public async Task Without_a_size_nothing_is_kept()
    {
        await using ShellPool pool = NewPool(size: 0);
        await using MachineShell shell = pool.Rent(Small);

        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal(0, pool.CountReady(Small));
    }

    [ContractFact]
    public async Task A_disposed_pool_gives_nothing()
    {
        ShellPool pool = NewPool(Size);
        await using (MachineShell shell = pool.Rent(Small))
        {
            // Disposal comes while the refilling is under way.
            await pool.DisposeAsync();
        }

        Assert.Equal(0, pool.CountReady(Small));
        Assert.Throws<ObjectDisposedException>(() => pool.Rent(Small));
    }

    [ContractFact]
    public async Task A_refill_that_fails_is_logged_and_leaves_nothing()
    {
        ListLoggerFactory loggers = new();
        KvmDevice closed = KvmDevice.Open();
        closed.Dispose();
        await using ShellPool pool = new(closed, Size, TimeSpan.Zero, _reclaimer, TimeProvider.System, loggers.CreateLogger("pool"));
        await using MachineShell shell = pool.Rent(Small);

        await Assert.ThrowsAnyAsync<ObjectDisposedException>(shell.AttachAsync);
        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal(0, pool.CountReady(Small));
        Assert.Contains(loggers.Records, entry => entry.Level == LogLevel.Warning && entry.Id.Id == 2005);
    }

    [ContractFact]
    public async Task A_snapshot_that_is_restored_again_has_shells_with_its_memory_in_place()
    {
        await using ShellPool pool = NewPool(Size);
        using PageMap map = NewMap(below: null, page: 500, value: 7);
        await using MachineShell first = pool.Rent(Small, map);
        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal((Size, 0), (pool.CountReady(Small), pool.CountReady(Small, map)));

        await using MachineShell second = pool.Rent(Small, map);
        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal((Size, Size), (pool.CountReady(Small), pool.CountReady(Small, map)));

        await using MachineShell third = pool.Rent(Small, map);
        Assert.Equal(7, ValueAt(third, 500));
        Assert.Equal(0, ValueAt(second, 500));
        third.Memory.Install(map);
        second.Memory.Install(map);
        Assert.Equal((7, 7), (ValueAt(second, 500), ValueAt(third, 500)));
        await using MachineShell blank = pool.Rent(Small);
        Assert.Equal(0, ValueAt(blank, 500));
    }

    /// <summary>So it is with branches of one instance: each has a snapshot of its own, on top of the last.</summary>
    [ContractFact]
    public async Task The_next_snapshot_in_a_line_uses_what_was_prepared_for_the_last()
    {
        await using ShellPool pool = NewPool(Size);
        PageMap map = NewMap(below: null, page: 500, value: 1);
        for (int i = 2; i < 6; i++)
        {
            PageMap next = NewMap(map, page: 500 + i, value: i);
            map.Dispose();
            map = next;
            await using MachineShell shell = pool.Rent(Small, map);
            Assert.Equal(i < 4 ? 0 : i - 1, ValueAt(shell, 500 + i - 1));
            Assert.Equal(0, ValueAt(shell, 500 + i));
            shell.Memory.Install(map);
            Assert.Equal(i, ValueAt(shell, 500 + i));
            await pool.Refilled.WaitAsync(Watchdog);
            Assert.Equal(i == 2 ? 0 : 1, pool.CountReady(Small, map));
            Assert.Equal(Size, pool.CountReady(Small));
        }

        map.Dispose();
    }

    [ContractFact]
    public async Task Nothing_of_a_snapshot_that_nobody_uses_is_held()
    {
        await using ShellPool pool = NewPool(Size);
        PageMap map = NewMap(below: null, page: 500, value: 7);
        MemoryLayer layer = Assert.Single(map.Layers);
        for (int i = 0; i < 2; i++)
        {
            await using MachineShell shell = pool.Rent(Small, map);
        }

        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal(Size, pool.CountReady(Small, map));
        map.Dispose();

        Assert.False(layer.TryAddReference());
        Assert.Equal(0, pool.CountReady(Small, map));
        await _reclaimer.FlushAsync();
    }

    /// <summary>Whenever the last use of the snapshot ends, and the pool.</summary>
    [ContractFact]
    public async Task A_snapshot_may_go_while_its_shells_are_made()
    {
        for (int i = 0; i < 30; i++)
        {
            ShellPool pool = NewPool(Size);
            PageMap map = NewMap(below: null, page: 500, value: 7);
            MemoryLayer layer = Assert.Single(map.Layers);
            await using (MachineShell first = pool.Rent(Small, map))
            await using (MachineShell second = pool.Rent(Small, map))
            {
                Task disposal = i % 2 == 0 ? Task.CompletedTask : pool.DisposeAsync().AsTask();
                map.Dispose();
                await disposal;
                Assert.False(layer.TryAddReference());
            }

            await pool.DisposeAsync();
        }
    }

    [ContractFact]
    public async Task Nothing_is_prepared_for_many_snapshots_that_are_restored_in_turn()
    {
        await using ShellPool pool = NewPool(size: 1);
        PageMap[] maps = [.. Enumerable.Range(1, 5).Select(value => NewMap(below: null, page: 500, value))];
        for (int i = 0; i < 3; i++)
        {
            foreach (PageMap map in maps)
            {
                await using MachineShell shell = pool.Rent(Small, map);
                await pool.Refilled.WaitAsync(Watchdog);
            }
        }

        Assert.All(maps, map => Assert.Equal(0, pool.CountReady(Small, map)));
        Assert.Equal(1, pool.CountReady(Small));
        Assert.All(maps, static map => map.Dispose());
    }

    [ContractFact]
    public async Task The_latest_four_snapshots_are_kept()
    {
        await using ShellPool pool = NewPool(size: 1);
        PageMap[] maps = [.. Enumerable.Range(1, 6).Select(value => NewMap(below: null, page: 500, value))];
        foreach (PageMap map in maps)
        {
            for (int i = 0; i < 2; i++)
            {
                await using MachineShell shell = pool.Rent(Small, map);
                await pool.Refilled.WaitAsync(Watchdog);
            }
        }

        Assert.Equal([0, 0, 1, 1, 1, 1], maps.Select<PageMap, int>(map => pool.CountReady(Small, map)));
        Assert.Equal(1, pool.CountReady(Small));
        Assert.All(maps, static map => map.Dispose());
    }

    [ContractFact]
    public async Task Nothing_is_leaked()
    {
        await ProcessResources.AssertNoGrowthAsync(
            async () =>
            {
                await using ShellPool pool = NewPool(Size);
                await using MachineShell shell = pool.Rent(Small);
                await pool.Refilled.WaitAsync(Watchdog);
                await using MachineShell ready = pool.Rent(Small);
            },
            rounds: 20,
            bytesPerRound: Small.MemorySize);
    }

    private static PageMap NewMap(PageMap? below, int page, int value)
    {
        byte[] content = new byte[PageSize.Bytes];
        BitConverter.TryWriteBytes(content, value);
        using LayerWriter writer = new((int)(Small.MemorySize >> PageSize.Shift));
        writer.Store(page, content);
        return writer.Seal(below);
    }

    private static int ValueAt(MachineShell shell, int page) => shell.Memory.Read<int>((long)page << PageSize.Shift);

    private ShellPool NewPool(int size) => new(_device!, size, TimeSpan.Zero, _reclaimer, TimeProvider.System, NullLogger.Instance);
}

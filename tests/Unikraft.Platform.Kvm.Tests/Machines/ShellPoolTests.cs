using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines;
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

    private KvmDevice? _device;

    public Task InitializeAsync()
    {
        _device = KvmProbe.Check().IsUsable ? KvmDevice.Open() : null;
        return Task.CompletedTask;
    }

    public Task DisposeAsync()
    {
        _device?.Dispose();
        return Task.CompletedTask;
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
        await using ShellPool pool = new(_device!, Size, delay, time, NullLogger.Instance);
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

        Assert.Equal([0, 0, 1, 1, 1, 1], shapes.Select(pool.CountReady));
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
        await using ShellPool pool = new(closed, Size, TimeSpan.Zero, TimeProvider.System, loggers.CreateLogger("pool"));
        await using MachineShell shell = pool.Rent(Small);

        await Assert.ThrowsAnyAsync<ObjectDisposedException>(shell.AttachAsync);
        await pool.Refilled.WaitAsync(Watchdog);
        Assert.Equal(0, pool.CountReady(Small));
        Assert.Contains(loggers.Records, entry => entry.Level == LogLevel.Warning && entry.Id.Id == 2005);
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

    private ShellPool NewPool(int size) => new(_device!, size, TimeSpan.Zero, TimeProvider.System, NullLogger.Instance);
}

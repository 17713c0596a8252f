using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>A snapshot stores what has changed: all of it, and nothing else.</summary>
public sealed class SnapshotContentTests : KvmTest
{
    private const long Unchanged = 16 << 10;

    [ContractFact]
    public async Task A_snapshot_of_an_unchanged_machine_stores_next_to_nothing()
    {
        await using TestMachine source = await BootAsync("counter", 1, 64, "--period-ms", "0", "--touch", "--arena-mb", "32");
        await source.TickAsync();
        using IMachineSnapshot first = await source.CaptureAsync();
        using IMachineSnapshot second = await source.CaptureAsync();
        await using TestMachine clone = await RestoreAsync(second);
        using IMachineSnapshot ofClone = await clone.CaptureAsync();

        Assert.InRange(first.StoredBytes, 32 << 20, 40 << 20);
        Assert.InRange(second.StoredBytes, 0, Unchanged);
        Assert.InRange(ofClone.StoredBytes, 0, Unchanged);
    }

    /// <summary>What was written between the last round and the cut is stored with that cut, not again with the next one.</summary>
    [ContractFact]
    public async Task What_was_copied_in_the_cut_is_stored_once()
    {
        const int Pages = 2000;
        await using TestMachine source = await BootAsync(
            "counter", 1, 64, "--period-ms", "0", "--pages", $"{Pages}", "--arena-mb", "32", "--random");
        KvmMachine machine = (KvmMachine)source.Machine;
        (await source.CaptureAsync()).Dispose();
        CaptureHooks writing = new(BeforeCut: async () => await source.TickAsync());
        using KvmSnapshot withResidue = await machine.CaptureAsync(CaptureOptions.Default, writing, CancellationToken.None).Guarded();
        using IMachineSnapshot after = await source.CaptureAsync();

        Assert.InRange(withResidue.StoredBytes, Pages * PageSize.Bytes, Pages * PageSize.Bytes + (64 << 10));
        Assert.InRange(after.StoredBytes, 0, Unchanged);
    }

    /// <summary>KVM's log and the record of the host's writes against the one thing that cannot err: a comparison of all pages.</summary>
    [ContractTheory]
    [InlineData(int.MaxValue)]
    [InlineData(64 * 3)]
    public async Task What_is_stored_is_what_a_comparison_of_all_pages_finds(int slotPages)
    {
        const int Rounds = 100;

        // So large that what lies scattered in it is never folded, which would bring all pages into a new layer.
        const int MemoryMb = 96;

        // Stacks and the page for calls may be written without being changed.
        const int MaxRewritten = 16;
        await using KvmHypervisor hypervisor = NewHypervisor(slotPages);
        RecordingMonitor monitor = new();
        await using TestMachine source = new(
            await hypervisor.CreateAsync(
                Configuration(GuestImages.Get("counter"), 1, MemoryMb, "--period-ms", "0", "--random", "--pages", "40", "--arena-mb", "1"),
                monitor),
            monitor);
        await source.Machine.StartAsync();
        KvmMachine machine = (KvmMachine)source.Machine;
        SnapshotComparison comparison = new(source.Memory);
        for (int round = 0; round < Rounds; round++)
        {
            // The guest writes a part of it, the host another: input goes through the host's hands.
            await source.SendAsync($"mark {new string('x', round)}");
            await source.TickAsync();
            using KvmSnapshot snapshot = await machine.CaptureAsync(
                CaptureOptions.Default,
                new CaptureHooks(BeforeCut: async () => await source.TickAsync(), InCut: comparison.Copy),
                CancellationToken.None).Guarded();
            Assert.InRange(comparison.AssertStored(snapshot, $"Round {round}").Rewritten.Count, 0, MaxRewritten);
        }
    }

    [ContractFact]
    public async Task A_guest_that_writes_more_than_the_budget_allows_is_held_back_and_captured_whole()
    {
        const int Pages = 4000;
        await using TestMachine source = await BootAsync(
            "counter", 1, 64, "--period-ms", "0", "--random", "--pages", $"{Pages}", "--arena-mb", "32");
        KvmMachine machine = (KvmMachine)source.Machine;
        byte[] atCut = new byte[source.Memory.Size];
        (await source.CaptureAsync()).Dispose();

        // Far fewer pages can be copied in a millisecond than are written before it is looked.
        CaptureOptions hurried = new() { PauseBudget = TimeSpan.FromMilliseconds(1) };
        CaptureHooks hooks = new(
            AfterRounds: async () => await source.TickAsync(),
            InCut: () => source.Memory.Read(0, atCut.Length).CopyTo(atCut));
        using KvmSnapshot held = await machine.CaptureAsync(hurried, hooks, CancellationToken.None).Guarded();
        using PageMap map = held.ShareMemory();
        using GuestMemory assembled = new(atCut.Length);
        assembled.Install(map);
        Assert.True(assembled.Read(0, atCut.Length).SequenceEqual(atCut));
        using KvmSnapshot free = await machine.CaptureAsync(CaptureOptions.Default, hooks, CancellationToken.None).Guarded();

        Assert.NotEqual(TimeSpan.Zero, held.Throttled);
        Assert.Equal(TimeSpan.Zero, free.Throttled);
        await source.TickAsync();
    }

    /// <summary>All that a vCPU thread does from one cut to the next, with the guest asleep, is to wake up, to make the cut and to sleep again.</summary>
    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task A_cut_allocates_nothing(int vcpus)
    {
        await using TestMachine source = await BootAsync("counter", vcpus, 64, "--period-ms", "0", "--smp");
        KvmMachine machine = (KvmMachine)source.Machine;
        await source.TickAsync();
        CutAllocations allocations = new();
        for (int i = 0; i < 20; i++)
        {
            (await machine.CaptureAsync(CaptureOptions.Default, allocations.Hooks, CancellationToken.None).Guarded()).Dispose();
        }

        allocations.AssertNone();
    }

    [ContractFact]
    public async Task A_capture_is_cancelled_while_its_machine_is_held_back()
    {
        await using TestMachine source = await BootAsync(
            "counter", 1, 64, "--period-ms", "0", "--busy", "--quiet", "--random", "--arena-mb", "32", "--rate", "1000000");
        byte[] atCut = new byte[source.Memory.Size];
        CaptureOptions hurried = new() { PauseBudget = TimeSpan.FromMicroseconds(1) };
        int cancelled = 0;
        for (int delay = 0; delay < 20; delay++)
        {
            using CancellationTokenSource cancellation = new(TimeSpan.FromMilliseconds(delay));
            Exception? error = await Record.ExceptionAsync(
                async () => (await source.Machine.CaptureAsync(hurried, cancellation.Token).Guarded()).Dispose());
            Assert.True(error is null or OperationCanceledException, $"{error}");
            cancelled += error is null ? 0 : 1;
        }

        Assert.NotEqual(0, cancelled);
        using KvmSnapshot snapshot = await ((KvmMachine)source.Machine).CaptureAsync(
            CaptureOptions.Default,
            new CaptureHooks(InCut: () => source.Memory.Read(0, atCut.Length).CopyTo(atCut)),
            CancellationToken.None).Guarded();
        using PageMap map = snapshot.ShareMemory();
        using GuestMemory assembled = new(atCut.Length);
        assembled.Install(map);
        Assert.True(assembled.Read(0, atCut.Length).SequenceEqual(atCut));
        await source.TickAsync();
    }
}

using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>What a snapshot promises, many times over: it is the memory of one moment, it is whole, and nothing is left of a clone that is gone.</summary>
/// <remarks>In the SVM lab one round in a hundred: all of them take it an hour.</remarks>
public sealed class SnapshotProofTests : KvmTest
{
    private const int IdentityAddress = 0xF_0000 + 64;
    private const int IdentityLength = 16;
    private const int MemoryMb = 16;
    private const long ToleratedGrowth = 32 << 20;
    private const int ToleratedMachines = 10;

    private static readonly int Rounds = Repetitions.Of(1_000);
    private static readonly int Branches = Repetitions.Of(10_000);

    /// <summary>The plain copy that is taken in the cut is the oracle: rounds, log, residue, layers and folds must add up to the same bytes.</summary>
    [ContractTheory]
    [InlineData(1, 9, int.MaxValue)]
    [InlineData(2, 13, int.MaxValue)]
    [InlineData(1, 11, 64 * 7)]
    public async Task The_layers_add_up_to_the_memory_of_the_cut(int vcpus, int memoryMb, int slotPages)
    {
        await using KvmHypervisor hypervisor = NewHypervisor(slotPages);
        string[] args = ["--period-ms", "0", "--busy", "--quiet", "--random", "--arena-mb", "5", "--rate", "100000"];
        RecordingMonitor monitor = new();
        await using TestMachine source = new(
            await hypervisor.CreateAsync(Configuration(GuestImages.Get("counter"), vcpus, memoryMb, args), monitor).Guarded(),
            monitor);
        await source.Machine.StartAsync();
        await source.Monitor.MainReached;
        KvmMachine machine = (KvmMachine)source.Machine;
        byte[] atCut = new byte[source.Memory.Size];
        byte[] beforeThat = new byte[atCut.Length];
        int changedRounds = 0;
        for (int round = 0; round < Rounds; round++)
        {
            using KvmSnapshot snapshot = await machine
                .CaptureAsync(CaptureOptions.Default, new CaptureHooks(InCut: () => source.Memory.Read(0, atCut.Length).CopyTo(atCut)), CancellationToken.None)
                .Guarded();
            using PageMap map = snapshot.ShareMemory();
            using GuestMemory assembled = new(atCut.Length);
            assembled.Install(map);

            int difference = assembled.Read(0, atCut.Length).CommonPrefixLength(atCut);
            Assert.True(difference == atCut.Length, $"Round {round}: the byte at 0x{difference:x} is not that of the cut.");
            changedRounds += atCut.AsSpan().SequenceEqual(beforeThat) ? 0 : 1;
            atCut.CopyTo(beforeThat, 0);
        }

        // Of few rounds nothing follows: the guest may have slept in most of them. The first is not like nothing.
        Assert.InRange(changedRounds, Repetitions.OneIn == 1 ? Rounds / 2 : 1, Rounds);
    }

    /// <summary>Branches of a guest that runs: each is a snapshot of its own, with its rounds, layers, sheets and folds, and a machine that ran.</summary>
    [ContractFact]
    public async Task Ten_thousand_branches_are_all_different_and_leave_nothing()
    {
        HashSet<Guid> generations = [];
        HashSet<string> draws = [];
        await BranchAsync(Math.Max(Branches / 10, 100));
        await Hypervisor.ReclaimAsync();
        long residentBefore = ResidentBytes();
        ProcessResources before = ProcessResources.Capture();
        await BranchAsync(Branches);
        await Hypervisor.ReclaimAsync();
        ProcessResources after = ProcessResources.Capture();
        ProcessResources.AssertNoGrowth(before, tolerance: 16);
        Assert.InRange(ResidentBytes(), 0, residentBefore + ToleratedGrowth);

        // Mappings without a name are the runtime's as well, and cannot be counted; a machine that was left behind would show here.
        Assert.InRange(after.MappedBytes, 0, before.MappedBytes + ToleratedMachines * ((long)MemoryMb << 20));

        async Task BranchAsync(int count)
        {
            // Goes at the end, with the layers that its next branch would have been built on.
            await using TestMachine source = await BootAsync("counter", 1, MemoryMb, "--period-ms", "0", "--random", "--pages", "5");
            string nonce = (await source.TickAsync()).Nonce;
            int ticks = 1;
            await source.DrawAsync();
            for (int i = 0; i < count; i++)
            {
                using IMachineSnapshot snapshot = await source.CaptureAsync();
                await using TestMachine branch = await RestoreAsync(snapshot);
                Assert.True(generations.Add(new Guid(branch.Memory.Read(IdentityAddress, IdentityLength))), "Two branches have the same generation id.");
                Assert.True(draws.Add(await branch.DrawAsync()), "Two branches have drawn the same random number.");
                if (i % 10 == 0)
                {
                    ticks++;
                    CounterLine[] lines = [await source.TickAsync(), await branch.TickAsync()];
                    Assert.All(lines, line => Assert.Equal((nonce, ticks), (line.Nonce, line.Tick)));
                }
            }

            await ((KvmMachine)source.Machine).Background.Guarded();
        }
    }

    private static long ResidentBytes()
    {
        GC.Collect();
        const int ResidentField = 1;
        string[] fields = File.ReadAllText("/proc/self/statm").Split(' ');
        return long.Parse(fields[ResidentField], System.Globalization.CultureInfo.InvariantCulture) << PageSize.Shift;
    }
}

using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>What a snapshot promises, many times over: it is the memory of one moment, it is whole, and nothing is left of a clone that is gone.</summary>
/// <remarks>Not in the SVM lab by default: the rounds that make it a proof take it an hour. The same mechanisms, a few rounds each, are in CaptureTests.</remarks>
[Trait("Lab", "TooLong")]
public sealed class SnapshotProofTests : KvmTest
{
    private const int IdentityAddress = 0xF_0000 + 64;
    private const int IdentityLength = 16;
    private const int Rounds = 1_000;
    private const int Clones = 10_000;
    private const long ToleratedGrowth = 64 << 20;

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

        Assert.InRange(changedRounds, Rounds / 2, Rounds);
    }

    [ContractFact]
    public async Task Ten_thousand_clones_are_all_different_and_leave_nothing()
    {
        await using TestMachine source = await BootAsync("counter", 1, 16, "--period-ms", "0");
        await source.TickAsync();
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        HashSet<Guid> generations = [];
        HashSet<string> draws = [];
        await source.DrawAsync();
        await CloneAsync(Clones / 10);
        await Hypervisor.ReclaimAsync();
        long residentBefore = ResidentBytes();
        ProcessResources before = ProcessResources.Capture();
        await CloneAsync(Clones);
        await Hypervisor.ReclaimAsync();
        ProcessResources.AssertNoGrowth(before, tolerance: 16);
        Assert.InRange(ResidentBytes(), 0, residentBefore + ToleratedGrowth);

        async Task CloneAsync(int count)
        {
            for (int i = 0; i < count; i++)
            {
                await using TestMachine clone = await RestoreAsync(snapshot);
                Assert.True(generations.Add(new Guid(clone.Memory.Read(IdentityAddress, IdentityLength))), "Two clones have the same generation id.");
                Assert.True(draws.Add(await clone.DrawAsync()), "Two clones have drawn the same random number.");
            }
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

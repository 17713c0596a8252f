using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

public sealed class StatisticsTests : KvmTest
{
    [ContractFact]
    public async Task Resident_memory_is_what_the_guest_has_touched_its_own_and_what_it_shares()
    {
        await using TestMachine source = await BootAsync("counter", 1, 64, "--touch", "--arena-mb", "32", "--period-ms", "0");
        await source.TickAsync();
        IMachineStatistics statistics = source.Machine.GetFeature<IMachineStatistics>()!;
        Assert.InRange(statistics.ResidentBytes, 32 << 20, 64 << 20);
        using IMachineSnapshot snapshot = await source.CaptureAsync();

        // A clone shares what it reads with its source: little of it is its own.
        await using TestMachine clone = await RestoreAsync(snapshot);
        await clone.TickAsync();
        for (long page = 0; page < clone.Memory.Pages; page++)
        {
            clone.Memory.Read<byte>(page << PageSize.Shift);
        }

        IMachineStatistics shared = clone.Machine.GetFeature<IMachineStatistics>()!;
        Assert.InRange(shared.PrivateBytes, 4096, 4 << 20);
        Assert.InRange(shared.ResidentBytes, 32 << 20, 64 << 20);
        await clone.DisposeAsync();
        Assert.Equal(0, shared.ResidentBytes);
    }

    [ContractFact]
    public async Task Cpu_time_is_that_of_the_vcpus_and_stays_when_they_have_ended()
    {
        await using TestMachine idle = await BootAsync("counter", "--period-ms", "0");
        await using TestMachine busy = await BootAsync("counter", "--busy", "--period-ms", "0", "--rate", "100000");
        IMachineStatistics statistics = busy.Machine.GetFeature<IMachineStatistics>()!;
        TimeSpan before = statistics.CpuTime;
        Assert.True(before > TimeSpan.Zero);

        // It works until it has consumed some time of its own, however long that takes.
        while (statistics.CpuTime < before + TimeSpan.FromMilliseconds(30))
        {
            await busy.TickAsync();
        }

        await busy.Machine.PauseAsync().AsTask().Guarded();
        TimeSpan paused = statistics.CpuTime;
        TimeSpan other = idle.Machine.GetFeature<IMachineStatistics>()!.CpuTime;
        Assert.InRange(other, TimeSpan.FromTicks(1), paused);
        busy.Machine.Resume();
        await busy.DisposeAsync();
        TimeSpan last = statistics.CpuTime;
        Assert.True(last >= paused);
        Assert.Equal(last, statistics.CpuTime);
    }
}

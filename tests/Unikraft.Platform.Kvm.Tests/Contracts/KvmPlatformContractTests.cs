using Unikraft.Platform.Contracts;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Contracts;

[RequiresKvm]
public sealed class KvmPlatformContractTests : PlatformContract
{
    protected override void Configure(UnikraftPlatformBuilder builder) => builder.UseKvm();

    protected override GuestImage Image(string name) => GuestImages.Get(name);

    [ContractFact]
    public async Task Metrics_are_measured_of_this_vm_and_not_of_the_process()
    {
        Instance busy = await Instances.CreateAsync(
            Request("counter", "--busy", "--touch", "--arena-mb", "32", "--period-ms", "0", "--rate", "100000") with { WaitTimeout = Timeout.InfiniteTimeSpan });
        Instance idle = await CreateCounterAsync();
        await TickAsync(busy.Uuid);
        await TickAsync(idle.Uuid);

        IReadOnlyList<InstanceMetrics> metrics = Instances.GetMetrics(busy.Uuid, idle.Uuid);

        Assert.InRange(metrics[0].RssBytes, 32 << 20, 64 << 20);
        Assert.InRange(metrics[1].RssBytes, 4096, 16 << 20);
        Assert.True(metrics[1].CpuTime > TimeSpan.Zero);
        Assert.True(metrics[0].CpuTime > TimeSpan.Zero);
        await Instances.StopAsync(busy.Uuid, StopRequest.Forced);
        InstanceMetrics stopped = Assert.Single(Instances.GetMetrics(busy.Uuid));
        Assert.True(stopped.CpuTime >= metrics[0].CpuTime);
        Assert.Equal(0, stopped.RssBytes);
    }
}

using Unikraft.Platform.Contracts;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed class InMemoryPlatformTests : PlatformContract
{
    private readonly List<InMemoryHypervisor> _made = [];

    protected override void Configure(UnikraftPlatformBuilder builder)
    {
        ArgumentNullException.ThrowIfNull(builder);
        builder.UseTimeProvider(new ManualTimeProvider()).UseHypervisor(Make);
    }

    protected override GuestImage Image(string name) => GuestImage.FromFile($"/images/{name}.elf");

    public override async Task DisposeAsync()
    {
        await base.DisposeAsync();
        Assert.All(_made, hypervisor => Assert.Equal((0, 0), (hypervisor.Machines, hypervisor.Snapshots)));
    }

    private InMemoryHypervisor Make(HypervisorContext context)
    {
        InMemoryHypervisor hypervisor = new(new InMemoryHypervisorOptions(), context);
        _made.Add(hypervisor);
        return hypervisor;
    }
}

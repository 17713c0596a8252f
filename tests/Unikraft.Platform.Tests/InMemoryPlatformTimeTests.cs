using Unikraft.Platform.Contracts;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.InMemory;

namespace Unikraft.Platform.Tests;

/// <summary>Of guests whose machines have the clock of the platform.</summary>
public sealed class InMemoryPlatformTimeTests : PlatformTimeContract
{
    private InMemoryHypervisor? _hypervisor;

    protected override IHypervisor NewHypervisor(HypervisorContext context) => _hypervisor = new InMemoryHypervisor(new InMemoryHypervisorOptions(), context);

    protected override GuestImage Image(string name) => GuestImage.FromFile($"/images/{name}.elf");

    public override async Task DisposeAsync()
    {
        await base.DisposeAsync();
        Assert.Equal((0, 0), (_hypervisor!.Machines, _hypervisor.Snapshots));
    }
}

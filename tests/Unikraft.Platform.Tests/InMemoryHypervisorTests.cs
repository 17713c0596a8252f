using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed class InMemoryHypervisorTests : HypervisorContract
{
    private InMemoryHypervisor? _made;

    protected override IHypervisor CreateHypervisor() =>
        _made = new InMemoryHypervisor(
            new InMemoryHypervisorOptions(),
            new HypervisorContext(new ManualTimeProvider(), NullLoggerFactory.Instance));

    protected override GuestImage Image(string name) => GuestImage.FromFile($"/images/{name}.elf");

    public override async Task DisposeAsync()
    {
        await base.DisposeAsync();
        Assert.Equal((0, 0), (_made!.Machines, _made.Snapshots));
    }
}

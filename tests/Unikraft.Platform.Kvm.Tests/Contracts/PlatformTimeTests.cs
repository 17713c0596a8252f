using Unikraft.Platform.Contracts;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Contracts;

/// <summary>With real guests, to whom the time of the host passes.</summary>
[RequiresKvm]
public sealed class PlatformTimeTests : PlatformTimeContract
{
    protected override IHypervisor NewHypervisor(HypervisorContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        return new KvmHypervisor(new KvmOptions(), context with { TimeProvider = TimeProvider.System });
    }

    protected override GuestImage Image(string name) => GuestImages.Get(name);
}

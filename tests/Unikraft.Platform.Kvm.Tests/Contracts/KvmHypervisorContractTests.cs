using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Contracts;

[RequiresKvm]
public sealed class KvmHypervisorContractTests : HypervisorContract
{
    protected override IHypervisor CreateHypervisor() =>
        new KvmHypervisor(new KvmOptions(), new HypervisorContext(TimeProvider.System, NullLoggerFactory.Instance));

    protected override GuestImage Image(string name) => GuestImages.Get(name);
}

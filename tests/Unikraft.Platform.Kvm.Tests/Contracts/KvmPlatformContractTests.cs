using Unikraft.Platform.Contracts;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Contracts;

[RequiresKvm]
public sealed class KvmPlatformContractTests : PlatformContract
{
    protected override void Configure(UnikraftPlatformBuilder builder) => builder.UseKvm();

    protected override GuestImage Image(string name) => GuestImages.Get(name);
}

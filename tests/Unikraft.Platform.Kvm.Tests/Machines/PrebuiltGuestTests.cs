using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>The images in the repository are what their sources make, bit for bit.</summary>
[RequiresGuestToolchain]
public sealed class PrebuiltGuestTests
{
    [ContractFact]
    public async Task They_are_what_the_sources_make()
    {
        ProcessResult result = await ProcessResult.RunAsync("sh", [Repository.PathOf("guests/verify.sh")]).Guarded();
        Assert.True(result.ExitCode == 0, result.Output);
    }
}

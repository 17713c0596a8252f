using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>An image of Unikraft, as its tools make it. The repository has none: whoever has one puts it where the lab finds it.</summary>
[RequiresKvm]
[RequiresUnikraftImage]
public sealed class UnikraftTests
{
    [ContractFact]
    public async Task It_prints_and_ends()
    {
        UnikraftPlatformBuilder builder = new();
        builder.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        Instance instance = await platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Name = "unikraft",
            Image = RequiresUnikraftImageAttribute.Image!,
            MemoryMb = 128,
        }).Guarded();
        await using (LinuxShell console = new(platform, instance.Uuid))
        {
            await console.ReadLineAsync("hello");
        }

        Instance stopped = await platform.Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded();
        Assert.Equal(StopReason.App | StopReason.Kernel, stopped.StopReason);
        Assert.True(stopped.StopCode!.Value.IsClean);
    }
}

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
        Instance stopped;
        try
        {
            stopped = await platform.Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded();
        }
        catch (TimeoutException error)
        {
            throw new TimeoutException($"It does not end. Its console:\n{platform.Instances.ReadLog(instance.Uuid)}", error);
        }

        string text = platform.Instances.ReadLog(instance.Uuid).Text;

        // What is in it is for its owner to judge.
        await Console.Out.WriteLineAsync($"{stopped.StopReason} {stopped.StopCode} {stopped.ExitCode}\n{text}");
        Assert.True(stopped.StopReason!.Value.HasFlag(StopReason.Kernel));
        Assert.NotEmpty(text);
    }
}

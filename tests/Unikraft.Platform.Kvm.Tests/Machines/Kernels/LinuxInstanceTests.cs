using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>Linux as an instance of a platform: created, running, branched, stopped.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxInstanceTests
{
    /// <summary>A guest that powers off when its button is pressed.</summary>
    private const string Init = """
        #!/bin/busybox sh
        busybox() { /bin/busybox "$@"; }
        busybox mount -t devtmpfs dev /dev
        for m in button evdev; do busybox insmod /modules/$m.ko; done
        exec 3< /dev/input/event0
        echo ready
        busybox dd of=/dev/null bs=24 count=1 <&3
        busybox poweroff -f

        """;

    [ContractFact]
    public async Task It_is_created_running_branched_and_stopped()
    {
        UnikraftPlatformBuilder builder = new();
        builder.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        Instance source = await platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Name = "linux",
            Image = GuestImage.FromContent("linux", LinuxImage.WithInit(Init, RequiresLinuxKernelAttribute.Module("button"), RequiresLinuxKernelAttribute.Module("evdev"))),
            MemoryMb = 192,
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        Assert.Equal(InstanceState.Running, source.State);
        await using (IInstanceConsole console = platform.Instances.AttachConsole(source.Uuid, new ConsoleOptions { FromStart = true }))
        {
            using StreamReader output = new(console.Output.AsStream());
            while (!string.Equals(await output.ReadLineAsync(CancellationToken.None).Guarded(), "ready", StringComparison.Ordinal))
            {
            }
        }

        Instance branch = await platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Name = "branch",
            BranchFrom = source.Uuid,
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        Assert.Equal(InstanceState.Running, branch.State);
        foreach (Instance instance in new[] { source, branch })
        {
            await platform.Instances.StopAsync(instance.Uuid, new StopRequest { GracePeriod = Timeout.InfiniteTimeSpan }).Guarded();
            Instance stopped = await platform.Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded();
            Assert.Equal(StopReason.User | StopReason.Platform | StopReason.App | StopReason.Kernel, stopped.StopReason);
            Assert.Equal(0, stopped.ExitCode);
            Assert.True(stopped.StopCode!.Value.IsClean);
        }
    }
}

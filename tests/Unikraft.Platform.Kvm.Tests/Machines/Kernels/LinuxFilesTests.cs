using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>What a Linux guest has open, and writes to, goes the way of its instance.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxFilesTests
{
    /// <summary>A guest that powers off when its button is pressed.</summary>
    private const string Init = """
        #!/bin/busybox sh
        busybox() { /bin/busybox "$@"; }
        busybox mount -t devtmpfs dev /dev
        for m in button evdev; do busybox insmod /modules/$m.ko; done
        exec 3< /dev/input/event0
        echo complaint >&2
        echo ready
        busybox dd of=/dev/null bs=24 count=1 <&3
        busybox poweroff -f

        """;

    /// <summary>The same with a file that is open, half read and without a name when it is ready.</summary>
    private static readonly string InitWithOpenFile = Init
        .Replace("echo ready", "printf 'first\nsecond\n' > /list; exec 4< /list; busybox rm /list; read -r line <&4; echo had: $line; echo ready", StringComparison.Ordinal)
        .Replace("busybox poweroff", "read -r line <&4; echo has: $line; busybox poweroff", StringComparison.Ordinal);

    [ContractFact]
    public async Task Files_that_are_open_are_open_in_every_clone_of_a_template()
    {
        UnikraftPlatformBuilder builder = new();
        builder.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        await CreateAsync(platform, InitWithOpenFile);
        Assert.Contains("complaint", platform.Instances.ReadLog("linux").Text, StringComparison.Ordinal);
        Assert.Contains("had: first", platform.Instances.ReadLog("linux").Text, StringComparison.Ordinal);
        await platform.Templates.ConvertAsync("linux").Guarded();
        foreach (string clone in (string[])["one", "two"])
        {
            await platform.Instances.CreateAsync(new CreateInstanceRequest { Name = clone, Template = "linux", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            await platform.Instances.StopAsync(clone, new StopRequest { GracePeriod = Timeout.InfiniteTimeSpan }).Guarded();
            string log = platform.Instances.ReadLog(clone).Text;
            Assert.Contains("has: second", log, StringComparison.Ordinal);
            Assert.DoesNotContain("had:", log, StringComparison.Ordinal);
        }
    }

    private static async Task CreateAsync(IUnikraftPlatform platform, string init)
    {
        Instance source = await platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Name = "linux",
            Image = GuestImage.FromContent("linux", LinuxImage.WithInit(init, RequiresLinuxKernelAttribute.Module("button"), RequiresLinuxKernelAttribute.Module("evdev"))),
            MemoryMb = 192,
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        await using IInstanceConsole console = platform.Instances.AttachConsole(source.Uuid, new ConsoleOptions { FromStart = true });
        using StreamReader output = new(console.Output.AsStream());
        while (!string.Equals(await output.ReadLineAsync(CancellationToken.None).Guarded(), "ready", StringComparison.Ordinal))
        {
        }
    }
}

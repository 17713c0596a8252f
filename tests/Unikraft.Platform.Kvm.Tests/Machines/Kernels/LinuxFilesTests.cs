using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>What processes of Linux have open: files in clones of a template, and both of their outputs.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxFilesTests
{
    /// <summary>A guest that obeys lines.</summary>
    private const string Init = """
        #!/bin/busybox sh
        busybox() { /bin/busybox "$@"; }
        busybox mount -t devtmpfs dev /dev
        busybox stty -echo
        echo ready
        while read -r line; do eval "$line"; done

        """;

    [ContractFact]
    public async Task Files_that_are_open_are_open_in_every_clone_of_a_template_and_both_outputs_are_in_the_log()
    {
        UnikraftPlatformBuilder builder = new();
        builder.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        await platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Name = "linux",
            Image = GuestImage.FromContent("linux", LinuxImage.WithInit(Init)),
            MemoryMb = 192,
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        await using (LinuxShell shell = new(platform, "linux"))
        {
            await shell.ReadLineAsync("ready");

            // Read up to its middle, and without a name.
            await shell.TypeAsync("echo first > /list; echo second >> /list; exec 4< /list; busybox rm /list; read -r part <&4; echo had: $part");
            await shell.ReadLineAsync("had: first");
            await shell.TypeAsync("echo a complaint >&2; echo praise");
            await shell.ReadLineAsync("praise");
        }

        string log = platform.Instances.ReadLog("linux").Text;
        Assert.InRange(log.IndexOf("a complaint", StringComparison.Ordinal), 0, log.IndexOf("praise", StringComparison.Ordinal));
        await platform.Templates.ConvertAsync("linux").Guarded();
        foreach (string clone in (string[])["one", "two"])
        {
            await platform.Instances.CreateAsync(new CreateInstanceRequest { Name = clone, Template = "linux", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            await using LinuxShell shell = new(platform, clone, fromStart: false);
            await shell.TypeAsync("read -r part <&4; echo has: $part");
            await shell.ReadLineAsync("has: second");
        }
    }
}

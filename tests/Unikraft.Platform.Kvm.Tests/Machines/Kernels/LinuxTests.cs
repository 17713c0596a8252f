using System.Globalization;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>A stock Linux kernel with a shell as its only program.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxTests
{
    private const string Init = """
        #!/bin/busybox sh
        busybox() { /bin/busybox "$@"; }
        busybox mount -t proc proc /proc
        busybox mount -t sysfs sys /sys
        busybox stty -echo
        echo "up: $(busybox nproc) cpus, $(busybox grep MemTotal /proc/meminfo | busybox tr -s ' ' | busybox cut -d ' ' -f 2) kB"
        while read -r line; do eval "$line"; done

        """;

    [ContractFact]
    public async Task It_boots_to_a_shell_and_powers_off()
    {
        await using KernelMachineFixture linux = await BootAsync(vcpus: 1, memoryMb: 256);
        Assert.Equal(1, await ReadUpAsync(linux, least: 200, most: 256));
        await linux.TypeAsync("echo answer: $((6 * 7)) $(busybox uname -m) $(busybox cat /sys/devices/system/clocksource/clocksource0/current_clocksource)");
        Assert.Equal("answer: 42 x86_64 kvm-clock", (await linux.Monitor.ReadLineAsync("answer:")).TrimEnd('\r'));
        await linux.TypeAsync("busybox poweroff -f");
        Assert.Equal(new KernelExit.PoweredOff(), await linux.Exited);
    }

    [ContractFact]
    public async Task It_uses_memory_on_both_sides_of_the_gap_and_a_panic_is_a_reset()
    {
        await using KernelMachineFixture linux = await BootAsync(vcpus: 1, memoryMb: 3584);
        Assert.Equal(1, await ReadUpAsync(linux, least: 3400, most: 3584));
        await linux.TypeAsync("echo c > /proc/sysrq-trigger");
        Assert.Equal(new KernelExit.Reset(), await linux.Exited);
        Assert.Contains("Kernel panic - not syncing", linux.Monitor.Text, StringComparison.Ordinal);
    }

    private static async Task<KernelMachineFixture> BootAsync(int vcpus, long memoryMb)
    {
        byte[] initrd = new CpioArchive()
            .AddFolder("bin")
            .AddFolder("dev")
            .AddFolder("proc")
            .AddFolder("sys")
            .AddDevice("dev/console", 5, 1)
            .AddProgram("bin/busybox", RequiresLinuxKernelAttribute.ReadBusybox())
            .AddProgram("init", System.Text.Encoding.ASCII.GetBytes(Init))
            .Build();
        KernelImage kernel = KernelImage.Parse("vmlinuz", RequiresLinuxKernelAttribute.ReadKernel());
        Assert.Equal(BootProtocol.Linux64, kernel.Protocol);
        KernelMachineFixture linux = await KernelMachineFixture.CreateAsync(new KernelBoot(kernel, initrd, "console=ttyS0 panic=-1"), vcpus, memoryMb);
        linux.Machine.Start();
        return linux;
    }

    /// <summary>Waits for the shell.</summary>
    /// <returns>The number of CPUs.</returns>
    private static async Task<int> ReadUpAsync(KernelMachineFixture linux, int least, int most)
    {
        Task<string> line = linux.Monitor.ReadLineAsync("up: ");
        await Task.WhenAny(line, linux.Machine.Exited);
        Assert.True(line.IsCompletedSuccessfully, $"The shell did not come up. The console so far:\n{linux.Monitor.Text}");
        string[] words = (await line).Split(' ');
        Assert.InRange(int.Parse(words[3], CultureInfo.InvariantCulture) >> 10, least, most);
        return int.Parse(words[1], CultureInfo.InvariantCulture);
    }
}

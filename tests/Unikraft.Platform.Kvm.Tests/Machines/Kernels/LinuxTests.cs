using System.Globalization;
using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Tests.Snapshots;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>A stock Linux kernel with a shell as its only program.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxTests
{
    private static readonly StopCode Clean = new(StopCodeReason.Ok, isShuttingDown: true);

    private static readonly StopCode Panicked = new(StopCodeReason.Exception, errno: 131);

    /// <summary>Watchdogs that bark after minutes, which is less than an hour but more than a busy guest waits for its turn on an emulated CPU.</summary>
    private const string Patient =
        "console=ttyS0 panic=-1 watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=300 sysctl.kernel.hung_task_timeout_secs=600";

    private static readonly string[] Modules = ["button", "evdev", "pvpanic", "pvpanic-mmio", "virtio", "virtio_ring", "virtio_mmio", "virtio-rng"];

    /// <summary>A shell that obeys lines. What the kernel reports would get between its own, and is kept from the console but for emergencies.</summary>
    private const string Init = """
        #!/bin/busybox sh
        busybox() { /bin/busybox "$@"; }
        busybox mount -t proc proc /proc
        busybox mount -t sysfs sys /sys
        busybox mount -t devtmpfs dev /dev
        busybox mount -t tmpfs tmp /tmp
        busybox stty -echo
        busybox dmesg -n 1
        echo "up: $(busybox nproc) cpus, $(busybox grep MemTotal /proc/meminfo | busybox tr -s ' ' | busybox cut -d ' ' -f 2) kB"
        while read -r line; do eval "$line"; done

        """;

    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    [InlineData(8)]
    public async Task It_boots_to_a_shell_and_powers_off(int vcpus)
    {
        await using KernelMachineFixture linux = await BootAsync(vcpus, memoryMb: 256);
        Assert.Equal(vcpus, await ReadUpAsync(linux, least: 200, most: 256));
        await linux.TypeAsync("echo answer: $((6 * 7)) $(busybox uname -m) $(busybox cat /sys/devices/system/clocksource/clocksource0/current_clocksource)");
        Assert.Equal("answer: 42 x86_64 kvm-clock", (await linux.ReadLineAsync("answer:")));
        await linux.Monitor.MainReached;
        Assert.Equal(1, linux.Monitor.TimesMainReached);
        await linux.TypeAsync("busybox poweroff -f");
        Assert.Equal(new MachineExit.PoweredOff(0, Clean), await linux.Exited);
    }

    /// <remarks>The same kernel as it is before it is packed, which says that it is one for PVH; and as it would be without that.</remarks>
    [ContractTheory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task It_boots_uncompressed(bool byPvh)
    {
        byte[] kernel = Vmlinux.Unpack(RequiresLinuxKernelAttribute.ReadKernel());
        kernel = byPvh ? kernel : Vmlinux.WithoutPvh(kernel);
        Assert.Equal(byPvh ? BootProtocol.Pvh : BootProtocol.Linux64, KernelImage.Parse("vmlinux", kernel).Protocol);
        await using KernelMachineFixture linux = await KernelMachineFixture.CreateAsync(LinuxImage.WithInit(Init) with { Kernel = kernel }, vcpus: 2, memoryMb: 256);
        await linux.StartAsync();
        Assert.Equal(2, await ReadUpAsync(linux, least: 150, most: 256));
        await linux.Monitor.MainReached;
        await linux.TypeAsync("busybox poweroff -f");
        Assert.Equal(new MachineExit.PoweredOff(0, Clean), await linux.Exited);
    }

    /// <remarks>
    /// What writes is a busy guest; devices, by requests for random bytes; and the host, on the console. A page that is stored need not have changed, for it may have been
    /// written with what it was.
    /// </remarks>
    [ContractFact]
    public async Task What_is_stored_is_what_a_comparison_of_all_pages_finds()
    {
        const int Rounds = 6;
        await using KernelMachineFixture linux = await BootAsync(vcpus: 2, memoryMb: 192);
        await ReadUpAsync(linux, least: 100, most: 192);
        await linux.TypeAsync("""
            for m in virtio_ring virtio virtio_mmio virtio-rng; do busybox insmod /modules/$m.ko; done
            while :; do busybox head -c 300000 /dev/urandom > /tmp/a; done & while :; do busybox head -c 64 /dev/hwrng > /tmp/b; done & echo ready
            """);
        await linux.ReadLineAsync("ready");
        KernelMachine machine = (KernelMachine)linux.Machine;
        SnapshotComparison comparison = new(machine.Memory);
        for (int round = 0; round < Rounds; round++)
        {
            using KvmSnapshot snapshot = await machine.CaptureAsync(
                CaptureOptions.Default,
                new CaptureHooks(
                    BeforeCut: async () =>
                    {
                        await linux.TypeAsync("echo turn");
                        await linux.ReadLineAsync("turn");
                    },
                    InCut: comparison.Copy),
                CancellationToken.None).Guarded();
            Assert.InRange(comparison.AssertStored(snapshot, $"Round {round}").Changed, 1, machine.Memory.Pages - 1);
        }
    }

    /// <remarks>Linux takes memory for its drivers from above the gap when there is some, so that the source of random bytes is asked with such addresses.</remarks>
    [ContractFact]
    public async Task It_uses_memory_and_devices_on_both_sides_of_the_gap_and_a_panic_that_is_a_reset_is_told_from_a_reboot()
    {
        await using KernelMachineFixture linux = await BootAsync(vcpus: 1, memoryMb: 3584);
        Assert.Equal(1, await ReadUpAsync(linux, least: 3400, most: 3584));
        await linux.TypeAsync("for m in virtio_ring virtio virtio_mmio virtio-rng; do busybox insmod /modules/$m.ko; done; draw() { busybox head -c 4096 /dev/hwrng | busybox tail -c 32 | busybox md5sum; }; echo draw: $(draw)");
        string first = await linux.ReadLineAsync("draw: ");
        using KvmSnapshot snapshot = (KvmSnapshot)await linux.Machine.CaptureAsync().Guarded();
        VirtioDeviceState.QueueState queue = snapshot.Kernel!.Entropy.Queues[0];
        Assert.True(queue.IsReady);
        Assert.InRange(queue.Settings.Descriptors, (ulong)KernelMemoryMap.GapEnd, ulong.MaxValue);
        await using (TestMachine branch = await linux.RestoreAsync(snapshot))
        {
            await branch.Machine.TypeAsync("echo draw: $(draw)");
            await linux.TypeAsync("echo draw: $(draw)");
            string ofBranch = (await branch.Monitor.ReadLineAsync("draw: ")).TrimEnd('\r');
            string ofSource = await linux.ReadLineAsync("draw: ");
            Assert.Equal(3, new HashSet<string>([first, ofBranch, ofSource], StringComparer.Ordinal).Count);
        }

        await linux.TypeAsync("echo c > /proc/sysrq-trigger");
        Assert.Equal(new MachineExit.PoweredOff(ExitCode: null, Panicked), await linux.Exited);
        Assert.Contains("Kernel panic - not syncing", linux.Monitor.Text, StringComparison.Ordinal);
    }

    [ContractFact]
    public async Task The_power_button_is_pressed_and_a_reboot_is_the_end_of_the_kernel_alone()
    {
        await using KernelMachineFixture linux = await BootAsync(vcpus: 1, memoryMb: 256);
        await ReadUpAsync(linux, least: 200, most: 256);
        await linux.TypeAsync("for m in button evdev; do busybox insmod /modules/$m.ko; done; exec 3< /dev/input/event0; echo waiting; busybox dd of=/dev/null bs=24 count=1 <&3; echo pressed; busybox reboot -f");
        await linux.ReadLineAsync("waiting");
        linux.Machine.RequestStop();
        await linux.ReadLineAsync("pressed");
        Assert.Equal(new MachineExit.PoweredOff(ExitCode: null, Clean), await linux.Exited);
    }

    [ContractFact]
    public async Task A_panic_is_told_by_a_kernel_with_the_driver_for_it()
    {
        await using KernelMachineFixture linux = await BootAsync(vcpus: 1, memoryMb: 256);
        await ReadUpAsync(linux, least: 200, most: 256);
        await linux.TypeAsync("for m in pvpanic pvpanic-mmio; do busybox insmod /modules/$m.ko; done; echo c > /proc/sysrq-trigger");
        Assert.Equal(new MachineExit.PoweredOff(ExitCode: null, Panicked), await linux.Exited);
    }

    /// <remarks>With several vCPUs all of them are busy at the cut.</remarks>
    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Branches_go_on_where_their_source_was_and_draw_random_numbers_of_their_own(int vcpus)
    {
        await using KernelMachineFixture linux = await BootAsync(vcpus, memoryMb: 256);
        await ReadUpAsync(linux, least: 200, most: 256);
        int busy = vcpus > 1 ? vcpus : 0;
        await linux.TypeAsync($$"""
            x=17; busybox sleep 1000 & sleeper=$!; loops=; i=0; while [ $i -lt {{busy}} ]; do i=$((i+1)); while :; do n=$((n+1)); done & loops="$loops $!"; done
            /bin/linux-reseed /dev/ttyS1 /tmp/generation & while [ ! -s /tmp/generation ]; do busybox sleep 0.1; done; generation=$(busybox cat /tmp/generation); echo ready
            """);
        await linux.ReadLineAsync("ready");
        using IMachineSnapshot snapshot = await linux.Machine.CaptureAsync().Guarded();
        await using TestMachine branch = await linux.RestoreAsync(snapshot);
        await using TestMachine twin = await linux.RestoreAsync(snapshot);
        Assert.True(branch.Machine.HasReachedMain);
        const string Tell = "kill -0 $sleeper && echo told: $x $(busybox cat /proc/sys/kernel/random/uuid)";
        const string Reseeded = "while [ $(busybox cat /tmp/generation) = $generation ]; do busybox sleep 0.1; done; ";
        await branch.Machine.TypeAsync($"x=$((x+1)); {Reseeded}{Tell}");
        await twin.Machine.TypeAsync($"x=$((x+3)); {Reseeded}{Tell}");
        await linux.TypeAsync($"x=$((x+2)); {Tell}");
        string[] ofBranch = (await branch.Monitor.ReadLineAsync("told: ")).TrimEnd('\r').Split(' ');
        string[] ofTwin = (await twin.Monitor.ReadLineAsync("told: ")).TrimEnd('\r').Split(' ');
        string[] ofSource = (await linux.ReadLineAsync("told: ")).Split(' ');
        Assert.Equal(("18", "20", "19"), (ofBranch[1], ofTwin[1], ofSource[1]));
        Assert.Equal(3, new HashSet<string>([ofBranch[2], ofTwin[2], ofSource[2]], StringComparer.Ordinal).Count);

        // A kernel that was told to panics on a non-maskable interrupt.
        await branch.Machine.TypeAsync("kill $loops; echo 1 > /proc/sys/kernel/unknown_nmi_panic; echo told:");
        await branch.Monitor.ReadLineAsync("told:");
        branch.Machine.KillApp();
        Assert.Equal(new MachineExit.PoweredOff(ExitCode: null, Panicked), await branch.Exited);
        await linux.TypeAsync("kill $loops; busybox poweroff -f");
        Assert.Equal(new MachineExit.PoweredOff(0, Clean), await linux.Exited);
        Assert.DoesNotContain("soft lockup", branch.Monitor.Text + twin.Monitor.Text + linux.Monitor.Text, StringComparison.Ordinal);
    }

    /// <remarks>Nothing in the guest helps: ACPI tells the driver.</remarks>
    [ContractFact]
    public async Task A_kernel_with_a_driver_for_the_generation_id_takes_a_new_key_in_every_clone()
    {
        GuestImageContent content = LinuxImage.WithInit(Init) with { Kernel = RequiresLinuxKernelAttribute.ReadGenerationKernel() };
        await using KernelMachineFixture linux = await KernelMachineFixture.CreateAsync(content, vcpus: 1, memoryMb: 256);
        await linux.StartAsync();
        await ReadUpAsync(linux, least: 150, most: 256);
        await linux.TypeAsync("busybox dmesg -n 8; echo loud");
        await linux.ReadLineAsync("loud");
        using IMachineSnapshot snapshot = await linux.Machine.CaptureAsync().Guarded();
        HashSet<string> drawn = new(StringComparer.Ordinal);
        const string Draw = "echo drawn: $(busybox cat /proc/sys/kernel/random/uuid)";
        for (int i = 0; i < 2; i++)
        {
            await using TestMachine clone = await linux.RestoreAsync(snapshot);
            while (!(await clone.Monitor.ReadLineAsync("[")).Contains("crng reseeded due to virtual machine fork", StringComparison.Ordinal))
            {
            }

            await clone.Machine.TypeAsync($"busybox dmesg -n 1; {Draw}");
            drawn.Add((await clone.Monitor.ReadLineAsync("drawn: ")).TrimEnd('\r'));
        }

        await linux.TypeAsync(Draw);
        drawn.Add(await linux.ReadLineAsync("drawn: "));
        Assert.Equal(3, drawn.Count);
        Assert.DoesNotContain("virtual machine fork", linux.Monitor.Text, StringComparison.Ordinal);
    }

    [ContractFact]
    public async Task A_checkpoint_of_a_guest_under_load_is_loaded_from_files_by_another_hypervisor_an_hour_later()
    {
        ShiftedTimeProvider later = new(TimeSpan.FromHours(1));
        using TestDirectory folder = new();
        Guid id = Guid.NewGuid();
        string bootId;
        string reports;
        const string Report =
            "echo \"reports: $(busybox dmesg | busybox grep -v -i 'command line' | busybox grep -e stall -e lockup -e 'blocked for more' | busybox tr '\\n' ';')\"";
        await using (KernelMachineFixture linux = await BootAsync(vcpus: 4, memoryMb: 256, Patient))
        {
            await ReadUpAsync(linux, least: 200, most: 256);
            await linux.TypeAsync("for i in 1 2 3 4; do while :; do n=$((n+1)); done & done; echo boot: $(busybox cat /proc/sys/kernel/random/boot_id)");
            bootId = await linux.ReadLineAsync("boot: ");
            await linux.TypeAsync(Report);
            reports = await linux.ReadLineAsync("reports: ");
            await LinuxClock.AssertRightAsync(TimeProvider.System, async () =>
            {
                await linux.TypeAsync(LinuxClock.Command);
                return await linux.ReadLineAsync(LinuxClock.Prefix);
            });
            using IMachineSnapshot snapshot = await linux.Machine.CaptureAsync().Guarded();
            await using ISnapshotDirectory directory = await linux.Hypervisor.GetFeature<ISnapshotFiles>()!.OpenDirectoryAsync(folder.Path).Guarded();
            await directory.SaveAsync(id, snapshot).Guarded();
        }

        await using KvmHypervisor other = new(new KvmOptions { ReadyMachines = 0 }, new HypervisorContext(later, NullLoggerFactory.Instance));
        await using ISnapshotDirectory again = await other.GetFeature<ISnapshotFiles>()!.OpenDirectoryAsync(folder.Path).Guarded();
        using IMachineSnapshot opened = await again.OpenAsync(id).Guarded();
        RecordingMonitor monitor = new();
        await using TestMachine loaded = new(await other.RestoreAsync(opened, Guid.NewGuid(), monitor).Guarded(), monitor);
        await loaded.Machine.StartAsync().Guarded();
        await loaded.Machine.TypeAsync("kill $(jobs -p); echo boot: $(busybox cat /proc/sys/kernel/random/boot_id)");
        Assert.Equal(bootId, (await monitor.ReadLineAsync("boot: ")).TrimEnd('\r'));
        await LinuxClock.AssertRightAsync(later, async () =>
        {
            await loaded.Machine.TypeAsync(LinuxClock.Command);
            return await monitor.ReadLineAsync(LinuxClock.Prefix);
        });

        // No watchdog takes the hour for one in which nothing went on.
        await loaded.Machine.TypeAsync(Report);
        Assert.Equal(reports, (await monitor.ReadLineAsync("reports: ")).TrimEnd('\r'));
        await loaded.Machine.TypeAsync("busybox poweroff -f");
        Assert.Equal(new MachineExit.PoweredOff(0, Clean), await loaded.Exited);
    }

    /// <summary>The host's clock, but for the time of day.</summary>
    private sealed class ShiftedTimeProvider(TimeSpan shift) : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => base.GetUtcNow() + shift;
    }

    private static async Task<KernelMachineFixture> BootAsync(int vcpus, int memoryMb, string? commandLine = null)
    {
        GuestImageContent content = LinuxImage.WithInit(Init, [.. Modules.Select(RequiresLinuxKernelAttribute.Module)]) with { CommandLine = commandLine };
        KernelMachineFixture linux = await KernelMachineFixture.CreateAsync(content, vcpus, memoryMb);
        await linux.StartAsync();
        return linux;
    }

    /// <summary>Waits for the shell.</summary>
    /// <returns>The number of CPUs.</returns>
    private static async Task<int> ReadUpAsync(KernelMachineFixture linux, int least, int most)
    {
        Task<string> line = linux.ReadLineAsync("up: ");
        await Task.WhenAny(line, linux.Machine.Exited);
        Assert.True(line.IsCompletedSuccessfully, $"The shell did not come up. The console so far:\n{linux.Monitor.Text}");
        string[] words = (await line).Split(' ');
        Assert.InRange(int.Parse(words[3], CultureInfo.InvariantCulture) >> 10, least, most);
        return int.Parse(words[1], CultureInfo.InvariantCulture);
    }
}

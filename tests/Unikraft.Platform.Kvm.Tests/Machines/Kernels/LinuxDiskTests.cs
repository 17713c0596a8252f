using System.Globalization;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>Linux with ext4 on a qcow2 volume.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxDiskTests : IDisposable
{
    private const StopReason Regular = StopReason.User | StopReason.Platform | StopReason.App | StopReason.Kernel;

    private static readonly string[] Modules = ["virtio", "virtio_ring", "virtio_mmio", "virtio_blk", "button", "evdev"];

    /// <summary>Moves to a root on the volume, and obeys lines. The power button powers off, and has nothing left to write then.</summary>
    private const string Init = """
        #!/bin/busybox sh
        busybox() { /bin/busybox "$@"; }
        busybox mount -t devtmpfs dev /dev
        for m in virtio_ring virtio virtio_mmio virtio_blk button evdev; do busybox insmod /modules/$m.ko; done
        busybox mount -t ext4 /dev/vda /mnt || echo "no root"
        busybox mkdir -p /mnt/bin /mnt/proc /mnt/dev /mnt/tmp /mnt/data
        busybox cp /bin/busybox /bin/linux-reseed /bin/linux-writer /mnt/bin
        busybox cat > /mnt/start << 'END'
        busybox() { /bin/busybox "$@"; }
        busybox mount -t tmpfs tmp /tmp
        busybox stty -echo
        /bin/linux-reseed /dev/ttyS1 /tmp/generation &
        while [ ! -s /tmp/generation ]; do busybox sleep 0.1; done
        (
            busybox dd of=/dev/null bs=24 count=1 < /dev/input/event0 2> /dev/null
            busybox mount -o remount,ro /
            busybox poweroff -f
        ) &
        echo "root: type=$(busybox stat -f -c %T /) cpus=$(busybox nproc)"
        write() {
            /bin/linux-writer write /data /tmp/last &
            writer=$!
            while [ ! -e /tmp/last ]; do busybox sleep 0.1; done
        }
        tell() {
            read -r up rest < /proc/uptime
            read -r boot < /proc/sys/kernel/random/boot_id
            read -r generation < /tmp/generation
            echo "state: up=$up boot=$boot generation=$generation"
        }
        check() {
            while read -r generation < /tmp/generation; [ "$generation" = "$1" ]; do busybox sleep 0.1; done
            read -r uuid < /proc/sys/kernel/random/uuid
            kill -0 $writer && alive=1 || alive=0
            read -r was < /tmp/last
            while read -r last < /tmp/last; [ $last = $was ]; do busybox sleep 0.1; done
            : > /tmp/last.stop
            wait $writer
            ended=$?
            read -r last < /tmp/last
            busybox mount -o remount,ro /
            echo 3 > /proc/sys/vm/drop_caches
            echo "checked: was=$was files=$last good=$(/bin/linux-writer check /data $last) alive=$alive ended=$ended uuid=$uuid"
            tell
        }
        while read -r line; do eval "$line"; done
        END
        exec /bin/busybox switch_root /mnt /bin/busybox sh -c 'mount() { /bin/busybox mount "$@"; }; mount -t proc proc /proc; mount -t devtmpfs dev /dev; exec /bin/busybox sh /start < /dev/console > /dev/console 2>&1'

        """;

    private readonly JudgedFolder _volumes = new();

    public void Dispose() => _volumes.Dispose();

    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    public async Task It_boots_to_a_shell_on_a_volume(int vcpus)
    {
        await using IUnikraftPlatform platform = Open();
        Instance instance = await CreateAsync(platform, vcpus);
        await using LinuxShell shell = new(platform, instance.Uuid);
        IReadOnlyDictionary<string, string> root = await shell.ReadFieldsAsync("root");
        Assert.Equal(("ext2/ext3", vcpus.ToString(CultureInfo.InvariantCulture)), (root["type"], root["cpus"]));
        await shell.TypeAsync("echo kept > /data/file; echo read: $(busybox cat /data/file)");
        Assert.Equal("read: kept", await shell.ReadLineAsync("read: "));
        await StopAsync(platform, instance);
    }

    /// <remarks>
    /// While the source goes on writing, each branch in turn has written on as well, and then is looked at: everything that was synced is there, its clock is right and its
    /// random numbers are its own. Both it and, in the end, the source are stopped, and the host finds no fault in what they leave on their volumes.
    /// </remarks>
    [ContractFact]
    public async Task Twenty_branches_of_a_guest_that_writes_and_syncs_have_clean_volumes()
    {
        const int Branches = 20;
        await using IUnikraftPlatform platform = Open();
        Instance source = await CreateAsync(platform, vcpus: 1);
        await using LinuxShell shell = new(platform, source.Uuid);
        await shell.ReadFieldsAsync("root");
        await shell.TypeAsync("write; echo writing");
        await shell.ReadLineAsync("writing");
        await shell.AssertClockAsync();
        HashSet<string> uuids = new(StringComparer.Ordinal);
        for (int i = 0; i < Branches; i++)
        {
            IReadOnlyDictionary<string, string> before = await shell.AskAsync("tell", "state");
            Instance branch = await platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid }).Guarded();
            await using (LinuxShell other = new(platform, branch.Uuid, fromStart: false))
            {
                await other.AssertClockAsync();
                uuids.Add(await CheckAsync(other, before, $"check {before["generation"]}"));
                await StopAsync(platform, branch);
            }

            await platform.Instances.DeleteAsync(branch.Uuid).Guarded();
        }

        uuids.Add(await CheckAsync(shell, await shell.AskAsync("tell", "state"), "check none"));
        Assert.Equal(Branches + 1, uuids.Count);
        await shell.AssertClockAsync();
        await StopAsync(platform, source);
    }

    private static async Task<string> CheckAsync(LinuxShell shell, IReadOnlyDictionary<string, string> before, string command)
    {
        IReadOnlyDictionary<string, string> found = await shell.AskAsync(command, "checked");

        // All that was synced at the cut, and at least one file more.
        Assert.InRange(Number(found["files"]), Number(found["was"]) + 1, double.MaxValue);
        Assert.Equal(found["files"], found["good"]);
        Assert.Equal(("1", "0"), (found["alive"], found["ended"]));
        IReadOnlyDictionary<string, string> after = await shell.ReadFieldsAsync("state");
        Assert.Equal(before["boot"], after["boot"]);
        Assert.InRange(Number(after["up"]), Number(before["up"]), double.MaxValue);
        return found["uuid"];
    }

    private static double Number(string text) => double.Parse(text, CultureInfo.InvariantCulture);

    private static async Task<Instance> CreateAsync(IUnikraftPlatform platform, int vcpus) => await platform.Instances.CreateAsync(new CreateInstanceRequest
    {
        Name = "linux",

        // What the kernel reports would get between the lines of the shell.
        Image = GuestImage.FromContent("linux", LinuxImage.WithInit(Init, [.. Modules.Select(RequiresLinuxKernelAttribute.Module)]) with
        {
            CommandLine = "console=ttyS0 panic=-1 loglevel=1",
        }),
        MemoryMb = 192,
        Vcpus = vcpus,
        Volumes = [new InstanceVolume { SizeMb = 32, Filesystem = VolumeFilesystem.Ext4, At = "/data" }],
    }).Guarded();

    /// <summary>Presses the power button, and has the host look at the volume.</summary>
    private async Task StopAsync(IUnikraftPlatform platform, Instance instance)
    {
        await platform.Instances.StopAsync(instance.Uuid, new StopRequest { GracePeriod = Timeout.InfiniteTimeSpan }).Guarded();
        Instance stopped = await platform.Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded();
        Assert.Equal(Regular, stopped.StopReason);
        await VolumeReader.AssertCleanAsync(_volumes.Path, Assert.Single(stopped.Volumes).Uuid);
    }

    private IUnikraftPlatform Open()
    {
        UnikraftPlatformBuilder builder = new();
        builder.Configure(options => options.VolumeDirectory = _volumes.Path);
        builder.UseKvm();
        return builder.Build();
    }
}

using System.Globalization;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>Linux with ext4 on a qcow2 volume.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxDiskTests
{
    private const int Branches = 20;

    private static readonly string[] Modules = ["virtio", "virtio_ring", "virtio_mmio", "virtio_blk"];

    /// <summary>Moves to a root on the volume, and obeys lines.</summary>
    private const string Init = """
        #!/bin/busybox sh
        busybox() { /bin/busybox "$@"; }
        busybox mount -t proc proc /proc
        busybox mount -t devtmpfs dev /dev
        for m in virtio_ring virtio virtio_mmio virtio_blk; do busybox insmod /modules/$m.ko; done
        busybox mount -t ext4 /dev/vda /mnt || echo "no root"
        busybox mkdir -p /mnt/bin /mnt/proc /mnt/dev /mnt/tmp /mnt/sbin /mnt/lib /mnt/lib64
        busybox cp /bin/busybox /bin/linux-reseed /mnt/bin
        for d in sbin lib lib64; do busybox cp -r /$d /mnt; done
        busybox cat > /mnt/start << 'END'
        busybox() { /bin/busybox "$@"; }
        busybox mount -t tmpfs tmp /tmp
        busybox stty -echo
        /bin/linux-reseed /dev/ttyS1 /tmp/generation &
        while [ ! -s /tmp/generation ]; do busybox sleep 0.1; done
        echo "root: $(busybox stat -f -c %T /)"
        write() {
            i=0
            while [ ! -e /tmp/stop ]; do
                i=$((i+1))
                echo "$i $(busybox head -c 3000 /dev/urandom | busybox base64 -w 0)" | busybox dd of=/data/$i conv=fsync 2> /dev/null
                busybox md5sum /data/$i > /data/$i.sum
                busybox dd if=/dev/null of=/data/$i.sum conv=fsync,notrunc 2> /dev/null
                echo $i > /tmp/synced.new
                busybox mv /tmp/synced.new /tmp/synced

                # The lab has one processor, for the branch as well.
                busybox sleep 0.1
            done
        }
        tell() { echo "state: up=$(busybox cut -d . -f 1 /proc/uptime) boot=$(busybox cat /proc/sys/kernel/random/boot_id) generation=$(busybox cat /tmp/generation)"; }
        check() {
            while [ "$(busybox cat /tmp/generation)" = "$1" ]; do busybox sleep 0.1; done
            uuid=$(busybox cat /proc/sys/kernel/random/uuid)
            busybox kill -0 $writer && alive=1 || alive=0
            was=$(busybox cat /tmp/synced)
            while [ $(busybox cat /tmp/synced) = $was ]; do busybox sleep 0.1; done
            : > /tmp/stop
            wait $writer
            n=$(busybox cat /tmp/synced)
            j=0
            while [ $j -lt $n ]; do j=$((j+1)); echo /data/$j.sum; done | busybox xargs /bin/busybox cat > /tmp/sums
            good=$(busybox md5sum -c /tmp/sums 2> /dev/null | busybox grep -c ': OK$')
            busybox mount -o remount,ro /
            echo 3 > /proc/sys/vm/drop_caches
            busybox grep -q ' / ext4 ro' /proc/mounts && /sbin/e2fsck -fn /dev/vda > /tmp/fsck 2>&1
            echo "checked: files=$n good=$good fsck=$? alive=$alive uuid=$uuid"
            tell
        }
        while read -r line; do eval "$line"; done
        END
        busybox umount /proc
        exec /bin/busybox switch_root /mnt /bin/busybox sh -c 'mount() { /bin/busybox mount "$@"; }; mount -t proc proc /proc; mount -t devtmpfs dev /dev; exec /bin/busybox sh /start < /dev/console > /dev/console 2>&1'

        """;

    /// <remarks>
    /// While the source goes on writing, each branch in turn has written on as well, and then is looked at from inside: everything that was synced is there, and the
    /// file system of a kernel that was stopped in the middle of anything at all has no fault.
    /// </remarks>
    [ContractFact]
    public async Task Twenty_branches_of_a_guest_that_writes_and_syncs_have_clean_volumes()
    {
        UnikraftPlatformBuilder builder = new();
        builder.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        Instance source = await platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Name = "linux",
            // What the kernel reports would get between the lines of the shell.
            Image = GuestImage.FromContent("linux", LinuxImage.WithInit(Init, withTools: true, [.. Modules.Select(RequiresLinuxKernelAttribute.Module)]) with
            {
                CommandLine = "console=ttyS0 panic=-1 loglevel=1",
            }),
            MemoryMb = 256,
            Volumes = [new InstanceVolume { SizeMb = 64, Filesystem = VolumeFilesystem.Ext4, At = "/data" }],
        }).Guarded();
        await using LinuxShell shell = new(platform, source.Uuid);
        Assert.Equal("root: ext2/ext3", await shell.ReadLineAsync("root: "));
        await shell.TypeAsync("busybox mkdir -p /data; write & writer=$!; while [ ! -e /tmp/synced ]; do busybox sleep 0.1; done; echo writing");
        await shell.ReadLineAsync("writing");
        HashSet<string> uuids = new(StringComparer.Ordinal);
        for (int i = 0; i < Branches; i++)
        {
            IReadOnlyDictionary<string, string> before = await shell.AskAsync("tell", "state");
            LinuxClock clock = await shell.MeasureClockAsync();
            Instance branch = await platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid }).Guarded();
            await using (LinuxShell other = new(platform, branch.Uuid))
            {
                LinuxClock.AssertSame(clock, await other.MeasureClockAsync());
                uuids.Add(await CheckAsync(other, before, $"check {before["generation"]}"));
                await other.TypeAsync("busybox poweroff -f");
                await platform.Instances.WaitAsync(branch.Uuid, InstanceState.Stopped).Guarded();
            }

            await platform.Instances.DeleteAsync(branch.Uuid).Guarded();
        }

        uuids.Add(await CheckAsync(shell, await shell.AskAsync("tell", "state"), "check none"));
        Assert.Equal(Branches + 1, uuids.Count);
        await shell.TypeAsync("busybox poweroff -f");
        await platform.Instances.WaitAsync(source.Uuid, InstanceState.Stopped).Guarded();
    }

    private static async Task<string> CheckAsync(LinuxShell shell, IReadOnlyDictionary<string, string> before, string command)
    {
        IReadOnlyDictionary<string, string> found = await shell.AskAsync(command, "checked");
        Assert.NotEqual("0", found["files"]);
        Assert.Equal(found["files"], found["good"]);
        Assert.Equal("0", found["fsck"]);
        Assert.Equal("1", found["alive"]);
        IReadOnlyDictionary<string, string> after = await shell.AskAsync(":", "state");
        Assert.Equal(before["boot"], after["boot"]);
        Assert.InRange(int.Parse(after["up"], CultureInfo.InvariantCulture), int.Parse(before["up"], CultureInfo.InvariantCulture), int.MaxValue);
        return found["uuid"];
    }
}

using System.Globalization;
using System.Text;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>Linux with ext4 on a qcow2 volume.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxDiskTests
{
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
        busybox cp /bin/busybox /mnt/bin
        for d in sbin lib lib64; do busybox cp -r /$d /mnt; done
        busybox cat > /mnt/start << 'END'
        busybox() { /bin/busybox "$@"; }
        busybox mount -t tmpfs tmp /tmp
        busybox stty -echo
        echo "root: $(busybox stat -f -c %T /)"
        write() {
            i=0
            while [ ! -e /tmp/stop ]; do
                i=$((i+1))
                echo "$i $(busybox head -c 3000 /dev/urandom | busybox base64 -w 0)" | busybox dd of=/data/$i conv=fsync 2> /dev/null
                busybox md5sum /data/$i > /data/$i.sum
                busybox dd if=/dev/null of=/data/$i.sum conv=fsync,notrunc 2> /dev/null
                echo $i > /tmp/synced
            done
        }
        check() {
            : > /tmp/stop
            wait
            n=$(busybox cat /tmp/synced)
            bad=0
            j=0
            while [ $j -lt $n ]; do j=$((j+1)); busybox md5sum -c -s /data/$j.sum || bad=$((bad+1)); done
            busybox mount -o remount,ro / && /sbin/e2fsck -fn /dev/vda > /tmp/fsck 2>&1
            echo "checked: files=$n bad=$bad fsck=$? up=$(busybox cut -d . -f 1 /proc/uptime) now=$(busybox date +%s)"
        }
        while read -r line; do eval "$line"; done
        END
        busybox umount /proc
        exec /bin/busybox switch_root /mnt /bin/busybox sh -c 'mount() { /bin/busybox mount "$@"; }; mount -t proc proc /proc; mount -t devtmpfs dev /dev; exec /bin/busybox sh /start < /dev/console > /dev/console 2>&1'

        """;

    [ContractFact]
    public Task A_guest_that_writes_and_syncs_is_branched_and_every_volume_is_clean() => BranchAsync(branches: 3);

    [Trait("Lab", "TooLong")]
    [ContractFact]
    public Task Twenty_branches_of_a_guest_that_writes_and_syncs_have_clean_volumes() => BranchAsync(branches: 20);

    private static async Task BranchAsync(int branches)
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
        await using Shell shell = new(platform, source.Uuid);
        Assert.Equal("root: ext2/ext3", await shell.ReadLineAsync("root: "));
        await shell.TypeAsync("busybox mkdir -p /data; write & while [ ! -e /tmp/synced ]; do busybox sleep 1; done; echo writing");
        await shell.ReadLineAsync("writing");
        for (int i = 0; i < branches; i++)
        {
            long behind = await MeasureClockAsync(shell);
            Instance branch = await platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid }).Guarded();
            await using (Shell other = new(platform, branch.Uuid))
            {
                await CheckAsync(other, behind);
                await other.TypeAsync("busybox poweroff -f");
                await platform.Instances.WaitAsync(branch.Uuid, InstanceState.Stopped).Guarded();
            }

            await platform.Instances.DeleteAsync(branch.Uuid).Guarded();
        }

        await CheckAsync(shell, await MeasureClockAsync(shell));
        await shell.TypeAsync("busybox poweroff -f");
        await platform.Instances.WaitAsync(source.Uuid, InstanceState.Stopped).Guarded();
    }

    private static async Task CheckAsync(Shell shell, long sourceBehind)
    {
        await shell.TypeAsync("check");
        Dictionary<string, long> found = (await shell.ReadLineAsync("checked: "))
            .Split(' ')
            .Skip(1)
            .Select(static field => field.Split('='))
            .ToDictionary(static pair => pair[0], static pair => long.Parse(pair[1], CultureInfo.InvariantCulture), StringComparer.Ordinal);
        Assert.NotEqual(0, found["files"]);
        Assert.Equal(0, found["bad"]);
        Assert.Equal(0, found["fsck"]);
        Assert.NotEqual(0, found["up"]);

        // The clock of a branch is as far from the host's as that of its source was, which drifts in the lab.
        long behind = TimeProvider.System.GetUtcNow().ToUnixTimeSeconds() - found["now"];
        Assert.InRange(behind - sourceBehind, -2, 1 + (long)Patience.For(TimeSpan.FromSeconds(1)).TotalSeconds);
    }

    private static async Task<long> MeasureClockAsync(Shell shell)
    {
        await shell.TypeAsync("echo now: $(busybox date +%s)");
        string line = await shell.ReadLineAsync("now: ");
        return TimeProvider.System.GetUtcNow().ToUnixTimeSeconds() - long.Parse(line["now: ".Length..], CultureInfo.InvariantCulture);
    }

    /// <summary>The console of an instance.</summary>
    private sealed class Shell : IAsyncDisposable
    {
        private readonly IInstanceConsole _console;
        private readonly StreamReader _output;

        internal Shell(IUnikraftPlatform platform, Guid instance)
        {
            _console = platform.Instances.AttachConsole(instance, new ConsoleOptions { FromStart = true });
            _output = new StreamReader(_console.Output.AsStream(), Encoding.Latin1);
        }

        internal async Task TypeAsync(string line) => await _console.Input.WriteAsync(Encoding.UTF8.GetBytes(line + "\n")).Guarded();

        internal async Task<string> ReadLineAsync(string prefix)
        {
            StringBuilder before = new();
            try
            {
                while (await _output.ReadLineAsync(CancellationToken.None).Guarded() is { } line)
                {
                    before.AppendLine(line);
                    if (line.StartsWith(prefix, StringComparison.Ordinal))
                    {
                        return line;
                    }
                }

                throw new EndOfStreamException($"The console ended without '{prefix}': {before}");
            }
            catch (TimeoutException error)
            {
                throw new TimeoutException($"There was no line '{prefix}'. The console since then:\n{before}", error);
            }
        }

        public async ValueTask DisposeAsync()
        {
            _output.Dispose();
            await _console.DisposeAsync();
        }
    }
}

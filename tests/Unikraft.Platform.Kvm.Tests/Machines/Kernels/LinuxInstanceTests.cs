using System.Diagnostics;
using System.Globalization;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>Linux as an instance of a platform: what can be done to an instance can be done to it.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxInstanceTests : IDisposable
{
    /// <summary>Names the data directory in which a process of the test's own goes on.</summary>
    private const string ContinuationVariable = "UNIKRAFT_TEST_CONTINUATION";

    private const StopReason Regular = StopReason.User | StopReason.Platform | StopReason.App | StopReason.Kernel;

    /// <summary>A guest that powers off when its button is pressed, and obeys lines until then.</summary>
    private const string Init = """
        #!/bin/busybox sh
        busybox() { /bin/busybox "$@"; }
        busybox mount -t proc proc /proc
        busybox mount -t devtmpfs dev /dev
        busybox mount -t tmpfs tmp /tmp
        for m in button evdev; do busybox insmod /modules/$m.ko; done
        busybox stty -echo
        busybox dmesg -n 1
        (busybox dd of=/dev/null bs=24 count=1 < /dev/input/event0 2> /dev/null; busybox poweroff -f) &
        x=17
        tell() { echo "state: x=$x boot=$(busybox cat /proc/sys/kernel/random/boot_id) cpus=$(busybox nproc) up=$(busybox cut -d . -f 1 /proc/uptime)"; }
        echo ready
        while read -r line; do eval "$line"; done

        """;

    private readonly string _folder = Environment.GetEnvironmentVariable(ContinuationVariable) ?? Directory.CreateTempSubdirectory("linux-").FullName;

    private static bool IsContinuation => Environment.GetEnvironmentVariable(ContinuationVariable) is not null;

    public void Dispose()
    {
        if (!IsContinuation)
        {
            Directory.Delete(_folder, recursive: true);
        }
    }

    [ContractFact]
    public async Task It_is_created_running_branched_and_stopped_and_what_hangs_is_killed()
    {
        UnikraftPlatformBuilder builder = new();
        builder.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        Instance source = await CreateAsync(platform, vcpus: 1);
        Assert.Equal(InstanceState.Running, source.State);
        await using (LinuxShell shell = new(platform, source.Uuid))
        {
            await shell.ReadLineAsync("ready");
        }

        Instance branch = await platform.Instances.CreateAsync(Clone() with { Name = "branch", BranchFrom = source.Uuid }).Guarded();
        Assert.Equal(InstanceState.Running, branch.State);

        // A panic that is to halt leaves a guest that looks alive, and neither its button nor a non-maskable interrupt means anything to it any more.
        Instance hung = await platform.Instances.CreateAsync(Clone() with { Name = "hung", BranchFrom = source.Uuid }).Guarded();
        await using (LinuxShell shell = new(platform, hung.Uuid))
        {
            await shell.TypeAsync("echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger");
            while (!(await shell.ReadLineAsync("[")).Contains("end Kernel panic", StringComparison.Ordinal))
            {
            }
        }

        Assert.Equal(InstanceState.Running, platform.Instances.Get(hung.Uuid).State);
        await platform.Instances.StopAsync(hung.Uuid, new StopRequest { GracePeriod = TimeSpan.FromMilliseconds(100) }).Guarded();
        Instance killed = await platform.Instances.WaitAsync(hung.Uuid, InstanceState.Stopped).Guarded();
        Assert.Equal((StopReason.Force | StopReason.User | StopReason.Platform, null, null), (killed.StopReason, killed.ExitCode, killed.StopCode));
        StopCode clean = new(StopCodeReason.Ok, isShuttingDown: true);
        StopCode panicked = new(StopCodeReason.Exception, errno: 131);
        foreach ((string command, StopReason reason, int? exitCode, StopCode code) in new[]
        {
            ("busybox poweroff -f", StopReason.App | StopReason.Kernel, (int?)0, clean),
            ("busybox reboot -f", StopReason.Kernel, null, clean),
            ("echo c > /proc/sysrq-trigger", StopReason.Kernel, null, panicked),
            ("echo b > /proc/sysrq-trigger", StopReason.Kernel, null, panicked),
        })
        {
            Instance ending = await platform.Instances.CreateAsync(Clone() with { BranchFrom = source.Uuid }).Guarded();
            await using LinuxShell shell = new(platform, ending.Uuid, fromStart: false);
            await shell.TypeAsync(command);
            Instance ended = await platform.Instances.WaitAsync(ending.Uuid, InstanceState.Stopped).Guarded();
            Assert.Equal((command, reason, exitCode, code), (command, ended.StopReason!.Value, ended.ExitCode, ended.StopCode!.Value));
        }

        foreach (Instance instance in new[] { source, branch })
        {
            await StopAsync(platform, instance.Uuid);
        }
    }

    /// <remarks>The second half runs in a process of its own, on what the first one has left in the data directory.</remarks>
    [ContractFact]
    public async Task It_is_suspended_and_loaded_and_becomes_templates_also_when_the_host_process_is_another_one()
    {
        if (IsContinuation)
        {
            await ContinueAsync();
            return;
        }

        string boot;
        await using (IUnikraftPlatform platform = Open())
        {
            await CreateAsync(platform, vcpus: 2);
            await using LinuxShell shell = new(platform, "linux");
            boot = (await AskAsync(shell, x: 17, cpus: 2))["boot"];
            Instance suspended = await platform.Instances.SuspendAsync("linux").Guarded();
            Assert.Equal(InstanceState.Stopped, suspended.State);
            await platform.Instances.StartAsync("linux").Guarded();
            Assert.Equal(boot, (await AskAsync(shell, x: 17, cpus: 2))["boot"]);
            await platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "linux", Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            await shell.TypeAsync("x=18");
            await AskAsync(shell, x: 18, cpus: 2);
            await platform.Instances.SuspendAsync("linux").Guarded();
        }

        await File.WriteAllTextAsync(Path.Combine(_folder, "boot"), boot);
        ProcessStartInfo start = new(
            Environment.ProcessPath!,
            [Path.Combine(AppContext.BaseDirectory, "Unikraft.Platform.TestRunner.dll"), "--filter", nameof(It_is_suspended_and_loaded_and_becomes_templates_also_when_the_host_process_is_another_one)])
        {
            RedirectStandardOutput = true,
            UseShellExecute = false,
        };
        start.Environment[ContinuationVariable] = _folder;
        using Process process = Process.Start(start)!;
        string output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        Assert.True(process.ExitCode == 0, output);
    }

    private async Task ContinueAsync()
    {
        string boot = await File.ReadAllTextAsync(Path.Combine(_folder, "boot"));
        await using IUnikraftPlatform platform = Open();

        // Suspended over the change.
        await platform.Instances.StartAsync("linux").Guarded();
        await ExpectAsync("linux", x: 18);
        await StopAsync(platform, "linux");

        // Loaded, and a template, and a clone of that, and a template of the clone.
        await platform.Instances.CreateAsync(Clone() with { Name = "loaded", Checkpoint = "point" }).Guarded();
        await ExpectAsync("loaded", x: 17);
        await platform.Templates.ConvertAsync("loaded").Guarded();
        await platform.Instances.CreateAsync(Clone() with { Name = "clone", Template = "loaded" }).Guarded();
        await ExpectAsync("clone", x: 17);
        await using (LinuxShell shell = new(platform, "clone", fromStart: false))
        {
            await shell.TypeAsync("x=19");
            await AskAsync(shell, x: 19, cpus: 2);
        }

        await platform.Templates.ConvertAsync("clone").Guarded();
        foreach ((string name, string template, int x) in new[] { ("inner", "clone", 19), ("outer", "loaded", 17) })
        {
            await platform.Instances.CreateAsync(Clone() with { Name = name, Template = template }).Guarded();
            await ExpectAsync(name, x);
            await StopAsync(platform, name);
        }

        async Task ExpectAsync(string name, int x)
        {
            await using LinuxShell shell = new(platform, name, fromStart: false);
            Assert.Equal(boot, (await AskAsync(shell, x, cpus: 2))["boot"]);
        }
    }

    private static CreateInstanceRequest Clone() => new() { WaitTimeout = Timeout.InfiniteTimeSpan };

    private static Task<Instance> CreateAsync(IUnikraftPlatform platform, int vcpus) => platform.Instances.CreateAsync(new CreateInstanceRequest
    {
        Name = "linux",
        Image = GuestImage.FromContent("linux", LinuxImage.WithInit(Init, RequiresLinuxKernelAttribute.Module("button"), RequiresLinuxKernelAttribute.Module("evdev"))),
        MemoryMb = 192,
        Vcpus = vcpus,
        WaitTimeout = Timeout.InfiniteTimeSpan,
    }).Guarded();

    private static async Task<IReadOnlyDictionary<string, string>> AskAsync(LinuxShell shell, int x, int cpus)
    {
        IReadOnlyDictionary<string, string> state = await shell.AskAsync("tell", "state");
        Assert.Equal(
            (x.ToString(CultureInfo.InvariantCulture), cpus.ToString(CultureInfo.InvariantCulture)),
            (state["x"], state["cpus"]));
        return state;
    }

    private static async Task StopAsync(IUnikraftPlatform platform, NameOrUuid instance)
    {
        await platform.Instances.StopAsync(instance, new StopRequest { GracePeriod = Timeout.InfiniteTimeSpan }).Guarded();
        Instance stopped = await platform.Instances.WaitAsync(instance, InstanceState.Stopped).Guarded();
        Assert.Equal(Regular, stopped.StopReason);
        Assert.Equal(0, stopped.ExitCode);
        Assert.True(stopped.StopCode!.Value.IsClean);
    }

    private IUnikraftPlatform Open()
    {
        UnikraftPlatformBuilder builder = new();
        builder.Configure(options => options.DataDirectory = Path.Combine(_folder, "data"));
        builder.UseKvm();
        return builder.Build();
    }
}

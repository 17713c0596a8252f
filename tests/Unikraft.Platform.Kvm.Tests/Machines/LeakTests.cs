using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Tests.Boot.Kernels;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>After many rounds of anything, descriptors, mappings and threads are what they were.</summary>
public sealed class LeakTests : KvmTest
{
    private const int Rounds = 50;
    private const int MemoryMb = 64;

    /// <summary>Nothing is kept ready, so that what is counted does not depend on how far a refill has come.</summary>
    public LeakTests()
        : base(readyMachines: 0)
    {
    }

    [ContractFact]
    public Task Boot_and_dispose() => AssertNoLeakAsync(async () =>
    {
        await using TestMachine machine = await BootAsync("counter", 2, MemoryMb, "--period-ms", "0");
        await machine.TickAsync();
    });

    [ContractFact]
    public Task Creation_without_a_start() => AssertNoLeakAsync(async () =>
    {
        await using TestMachine machine = await CreateAsync("hello", 3, MemoryMb);
    });

    [ContractFact]
    public Task Capture_restore_and_dispose() => AssertNoLeakAsync(async () =>
    {
        await using TestMachine source = await BootAsync("counter", 2, MemoryMb, "--period-ms", "0", "--random");
        await source.TickAsync();
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        await using TestMachine clone = await RestoreAsync(snapshot);
        await clone.TickAsync();
        using IMachineSnapshot second = await clone.CaptureAsync();
    });

    [ContractFact]
    public async Task Templates_and_forks_from_inside()
    {
        KvmHypervisor? hypervisor = null;
        await using IUnikraftPlatform platform = new UnikraftPlatformBuilder()
            .UseHypervisor(_ => hypervisor = NewHypervisor(readyMachines: 0))
            .Build();
        await AssertNoLeakAsync(hypervisor!, async () =>
        {
            await platform.Instances.CreateAsync(new CreateInstanceRequest
            {
                Name = "base",
                Image = GuestImages.Get("counter"),
                Args = ["--period-ms", "0"],
                MemoryMb = MemoryMb,
                WaitTimeout = Timeout.InfiniteTimeSpan,
            }).Guarded();
            await SendAsync("base", "fork", "fork ");
            await SendAsync("base", "template", line: null);
            Instance clone = await platform.Instances.CreateAsync(new CreateInstanceRequest { Template = "base" }).Guarded();
            await SendAsync(clone.Uuid, "fork", "fork ");
            // The machine of what became a template is freed on the way; this waits for it.
            await platform.Templates.ConvertAsync(clone.Uuid).Guarded();
            foreach (Instance instance in platform.Instances.List())
            {
                await platform.Instances.DeleteAsync(instance.Uuid).Guarded();
            }

            foreach (Template template in platform.Templates.List())
            {
                await platform.Templates.DeleteAsync(template.Uuid).Guarded();
            }
        });

        async Task SendAsync(NameOrUuid instance, string command, string? line)
        {
            await using Unikraft.Platform.Contracts.ConsoleSession console = new(platform.Instances.AttachConsole(instance));
            await console.WriteLineAsync(command);
            if (line is not null)
            {
                await console.ReadLineAsync(line);
            }
            else
            {
                Assert.Null(await console.ReadLineAsync());
            }
        }
    }

    [ContractFact]
    public Task Boots_that_fail() => AssertNoLeakAsync(async () =>
    {
        await Assert.ThrowsAsync<ImageException>(() => CreateAsync(Configuration(GuestImage.FromBytes("bad", new byte[100]), 1, MemoryMb)));
        await Assert.ThrowsAsync<ImageException>(() => CreateAsync("contract", 8, 2));
        await Assert.ThrowsAsync<InvalidRequestException>(() => CreateAsync("hello", 4, MemoryMb, new string('x', 100_000)));
        await Assert.ThrowsAsync<InvalidRequestException>(() => CreateAsync("hello", 0, MemoryMb));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Hypervisor
            .CreateAsync(Configuration(GuestImages.Get("hello"), 2, MemoryMb), new RecordingMonitor(), new CancellationToken(canceled: true)).AsTask());
    });

    [ContractTheory]
    [InlineData(false)]
    [InlineData(true)]
    public Task Machines_that_cannot_be_constructed(bool isKernel) => AssertNoLeakAsync(async () =>
    {
        GuestImage image = isKernel
            ? GuestImage.FromContent("kernel", new GuestImageContent(EchoKernel.Build(EchoKernel.BzImage)))
            : GuestImages.Get("hello");
        InvalidOperationException error = await Assert.ThrowsAsync<InvalidOperationException>(() => CreateAsync(Configuration(image, 2, MemoryMb) with
        {
            Disks = [new MachineDisk { Slot = 0, Id = "gone", Device = new UnusableBlockDevice() }],
        }));
        Assert.Equal(UnusableBlockDevice.Message, error.Message);
    });

    [ContractFact]
    public Task Boots_that_are_cancelled_at_any_point() => AssertNoLeakAsync(async () =>
    {
        using CancellationTokenSource source = new();
        Task<IVirtualMachine> boot = Task.Run(
            () => Hypervisor.CreateAsync(Configuration(GuestImages.Get("hello"), 2, MemoryMb), new RecordingMonitor(), source.Token).AsTask());
        await Task.Yield();
        await source.CancelAsync();
        try
        {
            await (await boot.Guarded()).DisposeAsync();
        }
        catch (OperationCanceledException)
        {
            Assert.True(source.IsCancellationRequested);
        }
    });

    [ContractFact]
    public async Task Restores_that_fail()
    {
        await using TestMachine source = await BootAsync("counter", 2, MemoryMb, "--period-ms", "0");
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        IMachineSnapshot disposed = await source.CaptureAsync();
        await source.DisposeAsync();
        disposed.Dispose();
        snapshot.Dispose();
        await AssertNoLeakAsync(async () =>
        {
            await Assert.ThrowsAsync<ObjectDisposedException>(() => RestoreAsync(disposed));
            await Assert.ThrowsAnyAsync<OperationCanceledException>(
                () => Hypervisor.RestoreAsync(snapshot, Guid.NewGuid(), new RecordingMonitor(), new CancellationToken(canceled: true)).AsTask());
        });
    }

    [ContractFact]
    public Task Dispose_in_the_middle() => AssertNoLeakAsync(async () =>
    {
        TestMachine machine = await BootAsync("counter", 2, MemoryMb, "--busy", "--touch", "--rate", "100000", "--period-ms", "0");
        await machine.Machine.WriteConsoleAsync(new byte[1 << 20]);
        Task<int> waiting = machine.Machine.WriteConsoleAsync(new byte[1 << 20]).AsTask();
        Task<IMachineSnapshot> capture = machine.CaptureAsync();
        await machine.DisposeAsync();
        await waiting.Guarded();
        Exception? error = await Record.ExceptionAsync(async () => (await capture).Dispose());
        Assert.True(error is null or MachineExitedException or ObjectDisposedException, $"{error}");
    });

    [ContractFact]
    public Task Captures_that_are_cancelled() => AssertNoLeakAsync(async () =>
    {
        await using TestMachine source = await BootAsync("counter", 2, MemoryMb, "--busy", "--rate", "50000", "--period-ms", "0");
        (await source.CaptureAsync()).Dispose();
        using CancellationTokenSource cancellation = new();
        Task<IMachineSnapshot> capture = source.CaptureAsync(cancellation.Token);
        await Task.Yield();
        await cancellation.CancelAsync();
        Exception? error = await Record.ExceptionAsync(async () => (await capture).Dispose());
        Assert.True(error is null or OperationCanceledException, $"{error}");
    });

    [ContractFact]
    public Task Hypervisors() => AssertNoLeakAsync(async () =>
    {
        await using KvmHypervisor hypervisor = KvmProbeTests.NewHypervisor();
        await using IVirtualMachine machine = await hypervisor.CreateAsync(Configuration(GuestImages.Get("hello"), 1, MemoryMb), new RecordingMonitor());
        Assert.True(KvmProbe.Check().IsUsable);
    });

    private Task AssertNoLeakAsync(Func<Task> action) => AssertNoLeakAsync(Hypervisor, action);

    private static async Task AssertNoLeakAsync(KvmHypervisor hypervisor, Func<Task> action)
    {
        for (int round = 0; round < 3; round++)
        {
            await action();
        }

        await hypervisor.ReclaimAsync();
        ProcessResources before = ProcessResources.Capture();
        for (int round = 0; round < Rounds; round++)
        {
            await action();
        }

        await hypervisor.ReclaimAsync();
        ProcessResources after = ProcessResources.Capture();
        Assert.True(
            after.FileDescriptors <= before.FileDescriptors + 4,
            $"{after.FileDescriptors - before.FileDescriptors} descriptors were leaked.\n{after}");
        Assert.True(after.Threads <= before.Threads + 10, $"{after.Threads - before.Threads} threads were leaked.\n{after}");
        Assert.True(
            after.MappedBytes - before.MappedBytes < Rounds * ((long)MemoryMb << 20) / 4,
            $"{after.MappedBytes - before.MappedBytes} bytes of address space were leaked.\n{after}");
        ProcessResources.AssertNoGrowth(before, tolerance: 8);
    }
}

using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>A test on real KVM, with a hypervisor of its own.</summary>
[RequiresKvm]
public abstract class KvmTest : IAsyncLifetime
{
    private readonly Lazy<KvmHypervisor> _hypervisor;

    private protected KvmTest(int readyMachines = KvmOptions.DefaultReadyMachines) => _hypervisor = new Lazy<KvmHypervisor>(
        () => NewHypervisor(readyMachines: readyMachines));

    private protected KvmHypervisor Hypervisor => _hypervisor.Value;

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        if (_hypervisor.IsValueCreated)
        {
            await _hypervisor.Value.DisposeAsync();
        }
    }

    /// <summary>Another hypervisor, with slots of at most a number of pages.</summary>
    private protected static KvmHypervisor NewHypervisor(
        int slotPages = int.MaxValue,
        int readyMachines = KvmOptions.DefaultReadyMachines,
        HostTsc? tsc = null) => new(
            new KvmOptions { ReadyMachines = readyMachines },
            new HypervisorContext(TimeProvider.System, NullLoggerFactory.Instance),
            slotPages,
            tsc: tsc);

    private protected static MachineConfiguration Configuration(GuestImage image, int vcpus, int memoryMb, params string[] args) => new()
    {
        Uuid = Guid.NewGuid(),
        Name = "guest",
        Image = image,
        Vcpus = vcpus,
        MemoryMb = memoryMb,
        Args = args,
    };

    /// <summary>A machine that has not been started.</summary>
    private protected async Task<TestMachine> CreateAsync(string guest, int vcpus, int memoryMb, params string[] args) =>
        await CreateAsync(Configuration(GuestImages.Get(guest), vcpus, memoryMb, args));

    private protected async Task<TestMachine> CreateAsync(MachineConfiguration configuration)
    {
        RecordingMonitor monitor = new();
        return new TestMachine(await Hypervisor.CreateAsync(configuration, monitor).Guarded(), monitor);
    }

    /// <summary>A machine with one vCPU that has reached its main entry point.</summary>
    private protected Task<TestMachine> BootAsync(string guest, params string[] args) => BootAsync(guest, 1, 32, args);

    private protected async Task<TestMachine> BootAsync(string guest, int vcpus, int memoryMb, params string[] args)
    {
        TestMachine machine = await CreateAsync(guest, vcpus, memoryMb, args);
        await machine.Machine.StartAsync();
        await machine.Monitor.MainReached;
        return machine;
    }

    /// <summary>A machine restored and started.</summary>
    private protected async Task<TestMachine> RestoreAsync(IMachineSnapshot snapshot, params MachineDisk[] disks)
    {
        TestMachine machine = await RestoreWithoutStartAsync(snapshot, uuid: null, disks);
        await machine.Machine.StartAsync();
        return machine;
    }

    private protected async Task<TestMachine> RestoreWithoutStartAsync(IMachineSnapshot snapshot, Guid? uuid = null, params MachineDisk[] disks)
    {
        RecordingMonitor monitor = new();
        return new TestMachine(await Hypervisor.RestoreAsync(snapshot, uuid ?? Guid.NewGuid(), monitor, disks).Guarded(), monitor);
    }
}

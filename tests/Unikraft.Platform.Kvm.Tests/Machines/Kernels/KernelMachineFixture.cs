using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>A machine with a kernel and a hypervisor of its own, and what it says.</summary>
internal sealed class KernelMachineFixture : IAsyncDisposable
{
    private readonly KvmHypervisor _hypervisor;

    private KernelMachineFixture(KvmHypervisor hypervisor, IVirtualMachine machine, RecordingMonitor monitor)
    {
        _hypervisor = hypervisor;
        Machine = machine;
        Monitor = monitor;
    }

    internal IVirtualMachine Machine { get; }

    internal RecordingMonitor Monitor { get; }

    internal Task<MachineExit> Exited => WaitForExitAsync();

    internal static KvmHypervisor NewHypervisor(HostTsc? tsc = null) => new(
        new KvmOptions { ReadyMachines = 0 },
        new HypervisorContext(TimeProvider.System, NullLoggerFactory.Instance),
        tsc: tsc);

    internal static async Task<KernelMachineFixture> CreateAsync(GuestImageContent content, int vcpus = 1, int memoryMb = 32, params string[] args)
    {
        KvmHypervisor hypervisor = NewHypervisor();
        RecordingMonitor monitor = new();
        try
        {
            MachineConfiguration configuration = new()
            {
                Uuid = Guid.NewGuid(),
                Name = "kernel",
                Image = GuestImage.FromContent("kernel", content),
                Vcpus = vcpus,
                MemoryMb = memoryMb,
                Args = args,
            };
            return new KernelMachineFixture(hypervisor, await hypervisor.CreateAsync(configuration, monitor).Guarded(), monitor);
        }
        catch
        {
            await hypervisor.DisposeAsync();
            throw;
        }
    }

    internal async Task StartAsync() => await Machine.StartAsync().Guarded();

    internal KvmHypervisor Hypervisor => _hypervisor;

    /// <summary>A machine that continues from a snapshot, started.</summary>
    internal Task<TestMachine> RestoreAsync(IMachineSnapshot snapshot) => RestoreAsync(_hypervisor, snapshot);

    /// <summary>A machine that continues from a snapshot on another hypervisor, started.</summary>
    internal static async Task<TestMachine> RestoreAsync(KvmHypervisor hypervisor, IMachineSnapshot snapshot)
    {
        RecordingMonitor monitor = new();
        TestMachine machine = new(await hypervisor.RestoreAsync(snapshot, Guid.NewGuid(), monitor).Guarded(), monitor);
        await machine.Machine.StartAsync().Guarded();
        return machine;
    }

    /// <summary>Waits for the next line that begins in a certain way.</summary>
    internal async Task<string> ReadLineAsync(string prefix)
    {
        try
        {
            return (await Monitor.ReadLineAsync(prefix)).TrimEnd('\r');
        }
        catch (TimeoutException error)
        {
            throw new TimeoutException($"There was no line '{prefix}'. The console so far:\n{Monitor.Text}", error);
        }
    }

    internal Task TypeAsync(string line) => Machine.TypeAsync(line);

    private async Task<MachineExit> WaitForExitAsync()
    {
        try
        {
            return await Machine.Exited.Guarded();
        }
        catch (TimeoutException error)
        {
            throw new TimeoutException($"The machine did not end. The console so far:\n{Monitor.Text}", error);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Machine.DisposeAsync().Guarded();
        await _hypervisor.DisposeAsync().Guarded();
    }
}

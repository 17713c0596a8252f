using System.Collections.Concurrent;
using System.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency;

/// <summary>
/// Puts itself between the platform and its backend: notes, on the vCPU's own thread, when a guest has reached main, and gives access to the machines
/// behind the instances.
/// </summary>
/// <param name="inner">The platform to be.</param>
internal sealed class MachineProbe(UnikraftPlatformBuilder inner) : IPlatformBuilder
{
    private readonly ConcurrentDictionary<Guid, KvmMachine> _machines = [];
    private KvmHypervisor? _backend;
    private long _timestamp;

    /// <summary>When the last guest reached main.</summary>
    internal long Timestamp => Volatile.Read(ref _timestamp);

    /// <summary>The input that wakes each restored machine, given to it before it runs.</summary>
    internal ReadOnlyMemory<byte> WakeUp { get; set; }

    /// <summary>The machine that was made last for an instance.</summary>
    internal KvmMachine MachineOf(Guid instance) => _machines[instance];

    /// <summary>Lets go of the machine of an instance that is gone.</summary>
    internal void Forget(Guid instance) => _machines.TryRemove(instance, out _);

    /// <summary>Waits until everything that ended machines held has been given back.</summary>
    internal Task ReclaimAsync() => _backend!.ReclaimAsync();

    public IPlatformBuilder UseHypervisor(Func<HypervisorContext, IHypervisor> factory)
    {
        inner.UseHypervisor(context =>
        {
            _backend = (KvmHypervisor)factory(context);
            return new Hypervisor(_backend, this);
        });
        return this;
    }

    private sealed class Hypervisor(IHypervisor hypervisor, MachineProbe probe) : IHypervisor
    {
        public HypervisorInfo Info => hypervisor.Info;

        public async ValueTask<IVirtualMachine> CreateAsync(
            MachineConfiguration configuration,
            IMachineMonitor monitor,
            CancellationToken cancellationToken = default)
        {
            IVirtualMachine machine = await hypervisor.CreateAsync(configuration, new Monitor(monitor, probe), cancellationToken);
            probe._machines[configuration.Uuid] = (KvmMachine)machine;
            return machine;
        }

        public async ValueTask<IVirtualMachine> RestoreAsync(
            IMachineSnapshot snapshot,
            Guid uuid,
            IMachineMonitor monitor,
            IReadOnlyList<MachineDisk> disks,
            CancellationToken cancellationToken = default)
        {
            IVirtualMachine machine = await hypervisor.RestoreAsync(snapshot, uuid, new Monitor(monitor, probe), disks, cancellationToken);
            probe._machines[uuid] = (KvmMachine)machine;
            if (!probe.WakeUp.IsEmpty)
            {
                await machine.WriteConsoleAsync(probe.WakeUp, cancellationToken);
            }

            return machine;
        }

        public TFeature? GetFeature<TFeature>()
            where TFeature : class => hypervisor.GetFeature<TFeature>();

        public ValueTask DisposeAsync() => hypervisor.DisposeAsync();
    }

    private sealed class Monitor(IMachineMonitor monitor, MachineProbe probe) : IMachineMonitor
    {
        public void OnConsoleOutput(ReadOnlySpan<byte> output) => monitor.OnConsoleOutput(output);

        public void OnMainReached()
        {
            Volatile.Write(ref probe._timestamp, Stopwatch.GetTimestamp());
            monitor.OnMainReached();
        }

        public void OnTemplateRequested() => monitor.OnTemplateRequested();

        public void OnForkRequested() => monitor.OnForkRequested();
    }
}

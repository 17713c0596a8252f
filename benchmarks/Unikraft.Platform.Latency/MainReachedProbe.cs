using System.Diagnostics;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Latency;

/// <summary>Puts itself between the platform and its backend and notes, on the vCPU's own thread, when a guest has reached main.</summary>
/// <param name="inner">The platform to be.</param>
internal sealed class MainReachedProbe(UnikraftPlatformBuilder inner) : IPlatformBuilder
{
    private long _timestamp;

    /// <summary>When the last guest reached main.</summary>
    internal long Timestamp => Volatile.Read(ref _timestamp);

    public IPlatformBuilder UseHypervisor(Func<HypervisorContext, IHypervisor> factory)
    {
        inner.UseHypervisor(context => new Hypervisor(factory(context), this));
        return this;
    }

    private sealed class Hypervisor(IHypervisor hypervisor, MainReachedProbe probe) : IHypervisor
    {
        public HypervisorInfo Info => hypervisor.Info;

        public ValueTask<IVirtualMachine> CreateAsync(
            MachineConfiguration configuration,
            IMachineMonitor monitor,
            CancellationToken cancellationToken = default) =>
            hypervisor.CreateAsync(configuration, new Monitor(monitor, probe), cancellationToken);

        public ValueTask<IVirtualMachine> RestoreAsync(
            IMachineSnapshot snapshot,
            Guid uuid,
            IMachineMonitor monitor,
            CancellationToken cancellationToken = default) =>
            hypervisor.RestoreAsync(snapshot, uuid, new Monitor(monitor, probe), cancellationToken);

        public TFeature? GetFeature<TFeature>()
            where TFeature : class => hypervisor.GetFeature<TFeature>();

        public ValueTask DisposeAsync() => hypervisor.DisposeAsync();
    }

    private sealed class Monitor(IMachineMonitor monitor, MainReachedProbe probe) : IMachineMonitor
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

using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Devices;

namespace Unikraft.Platform.Benchmarks;

/// <summary>Everything that stands round a device, without a machine: a vCPU, a monitor that is told nothing, a control that is asked nothing.</summary>
internal sealed class SilentMachine : IMmioInitiator, IMachineMonitor, IMachineControl
{
    public int Index => 0;

    public ulong StackPointer => 0;

    public ulong FaultAddress => 0;

    public void OnConsoleOutput(ReadOnlySpan<byte> output) => throw new InvalidOperationException("The benchmark writes nothing.");

    public void OnMainReached() => throw new InvalidOperationException("The benchmark reaches no main.");

    public void OnTemplateRequested() => throw new InvalidOperationException("The benchmark becomes no template.");

    public void OnForkRequested() => throw new InvalidOperationException("The benchmark is not forked.");

    public void End(MachineExit exit) => throw new InvalidOperationException($"The benchmark ends nothing, but {exit} came.");

    public void BeginWait(int vcpu, ulong deadline, uint mask) => throw new InvalidOperationException("The benchmark does not wait.");

    public bool BeginRequest(int vcpu, GuestCall call, ulong address) =>
        throw new InvalidOperationException("The benchmark asks for nothing.");

    public void Wake(int vcpu) => throw new InvalidOperationException("The benchmark wakes nobody.");

    public void Raise(uint events) => throw new InvalidOperationException("The benchmark has no events.");

    public void Lower(uint events) => throw new InvalidOperationException("The benchmark has no events.");

    public void Follow(uint events, Func<bool> isPending) => throw new InvalidOperationException("The benchmark has no events.");
}

using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>An input of the interrupt controllers in the kernel.</summary>
/// <param name="vm">The VM; there before anything can set a line.</param>
/// <param name="number">The number of the input.</param>
internal sealed class InterruptLine(Task<KvmVm> vm, uint number) : IInterruptLine
{
    private readonly Lock _lock = new();
    private bool _isClosed;

    public void Set(bool isHigh)
    {
        lock (_lock)
        {
            if (!_isClosed)
            {
                vm.GetAwaiter().GetResult().SetInterruptLine(number, isHigh);
            }
        }
    }

    /// <summary>Cuts the line before the VM goes: somebody may still be typing.</summary>
    internal void Close()
    {
        lock (_lock)
        {
            _isClosed = true;
        }
    }
}

using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>An input of the interrupt controllers in the kernel.</summary>
internal sealed class InterruptLine(KvmVm vm, uint number) : IInterruptLine
{
    private readonly Lock _lock = new();
    private bool _isClosed;

    public void Set(bool isHigh)
    {
        lock (_lock)
        {
            if (!_isClosed)
            {
                vm.SetInterruptLine(number, isHigh);
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

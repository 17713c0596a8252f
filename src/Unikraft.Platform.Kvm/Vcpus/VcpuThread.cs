using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>
/// A thread that makes a KVM vCPU, waits for the vCPU of a machine to be given to it, and runs that to its end. KVM wants all calls for a vCPU
/// to come from the thread that made it.
/// </summary>
internal sealed class VcpuThread
{
    private const int StackSize = 256 << 10;

    private readonly Task<KvmVm> _vm;
    private readonly Func<KvmVm, KvmVcpu> _make;
    private readonly Thread _thread;
    private readonly TaskCompletionSource<Vcpu?> _assignment = new();

    /// <param name="vm">The VM, as soon as there is one.</param>
    /// <param name="make">Makes the vCPU, and brings it as far as it can be without knowing its machine.</param>
    internal VcpuThread(Task<KvmVm> vm, Func<KvmVm, KvmVcpu> make)
    {
        _vm = vm;
        _make = make;
        _thread = new Thread(Main, StackSize) { IsBackground = true, Name = "vcpu" };
    }

    internal void Start() => _thread.UnsafeStart();

    /// <summary>Gives the thread its vCPU.</summary>
    internal void Assign(Vcpu vcpu) => _assignment.SetResult(vcpu);

    /// <summary>Waits for the thread to be gone. One that was given no vCPU ends now.</summary>
    internal void Join()
    {
        _assignment.TrySetResult(null);
        _thread.Join();
    }

    private void Main()
    {
        KvmVcpu? kvm = null;
        Exception? error = null;
        try
        {
            kvm = _make(_vm.GetAwaiter().GetResult());
        }
        catch (Exception failure)
        {
            // For the machine that gets this thread to report.
            error = failure;
        }

        using (kvm)
        {
            if (_assignment.Task.GetAwaiter().GetResult() is { } vcpu)
            {
                Thread.CurrentThread.Name = vcpu.Name;
                vcpu.Run(kvm, error);
            }
        }
    }
}

using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>Makes one vCPU thread leave the guest, or not enter it.</summary>
/// <param name="signal">The signal.</param>
/// <param name="thread">The thread, as the kernel numbers it.</param>
/// <param name="runPage">The page that the vCPU shares with the kernel.</param>
internal sealed class VcpuKick(KickSignal signal, int thread, KvmRunPage runPage)
{
    /// <summary>To be called under the gate of the machine, after the attention flag was raised.</summary>
    internal void Send()
    {
        // Mostly it is for a cut, which then has the registers without asking.
        runPage.RequestRegisters();
        runPage.ImmediateExit = true;
        signal.Send(thread);
    }
}

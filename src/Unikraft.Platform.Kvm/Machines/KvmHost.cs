using Microsoft.Extensions.Logging;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>What all machines of a hypervisor share.</summary>
internal sealed record KvmHost(KvmDevice Device, KickSignal KickSignal, TimeProvider TimeProvider, StagingPool StagingPool, ILogger Logger) : IDisposable
{
    public void Dispose()
    {
        StagingPool.Dispose();
        Device.Dispose();
    }
}

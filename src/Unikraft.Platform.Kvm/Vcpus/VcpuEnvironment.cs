using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>What the vCPUs of a machine share.</summary>
internal sealed record VcpuEnvironment(
    RunControl Control,
    MmioBus Bus,
    IVcpuGuest Guest,
    KickSignal KickSignal,
    TimeProvider TimeProvider);

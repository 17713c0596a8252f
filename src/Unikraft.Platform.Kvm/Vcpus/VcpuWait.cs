using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Devices;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>A call that a vCPU sleeps in.</summary>
/// <param name="Deadline">When it ends at the latest, by the guest's monotonic clock in nanoseconds; all ones for never.</param>
/// <param name="Mask">The events that end it.</param>
/// <param name="Call">The call: the one to wait, or a request that the platform answers.</param>
/// <param name="Address">Where the guest wants a part of the answer to a request.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct VcpuWait(ulong Deadline, uint Mask, GuestCall Call = GuestCall.Wait, ulong Address = 0)
{
    internal static VcpuWait ForRequest(GuestCall call, ulong address) => new(ulong.MaxValue, 0, call, address);

    /// <summary>Whether only the platform's answer ends it here, and being restored ends it in a clone.</summary>
    internal bool IsRequest => Call != GuestCall.Wait;
}

using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>A sleep that a vCPU asked for.</summary>
/// <param name="Deadline">When it ends at the latest, by the guest's monotonic clock in nanoseconds; all ones for never.</param>
/// <param name="Mask">The events that end it.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct VcpuWait(ulong Deadline, uint Mask);

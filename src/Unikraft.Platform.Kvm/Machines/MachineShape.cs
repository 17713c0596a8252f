using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>What makes one shell usable in place of another.</summary>
/// <param name="MemorySize">The size of the memory in bytes.</param>
/// <param name="Vcpus">The number of vCPUs.</param>
/// <param name="SlotPages">The most pages of one slot of the memory.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct MachineShape(long MemorySize, int Vcpus, int SlotPages = int.MaxValue);

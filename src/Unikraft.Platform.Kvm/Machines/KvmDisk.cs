using Unikraft.Platform.Kvm.Devices.Virtio;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>A disk of a machine.</summary>
internal sealed record KvmDisk(int Slot, long Size, bool IsReadOnly, VirtioBlock Block);

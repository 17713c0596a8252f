using Unikraft.Platform.Kvm.Devices.Virtio;

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>What a snapshot holds of a disk: not what is on it.</summary>
/// <param name="Slot">Where the guest finds it.</param>
/// <param name="Size">Its size in bytes.</param>
/// <param name="IsReadOnly">Whether it could only be read.</param>
/// <param name="Device">The device in front of it.</param>
internal sealed record DiskState(int Slot, long Size, bool IsReadOnly, VirtioDeviceState Device);

using System.Runtime.InteropServices;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.InMemory;

/// <summary>What a guest knows of a disk besides what is on it.</summary>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct DiskShape(int Slot, long Size, bool IsReadOnly)
{
    public static DiskShape Of(MachineDisk disk) => new(disk.Slot, disk.Device.Size, disk.Device.IsReadOnly);

    /// <summary>Whether a clone of the guest can go on with a disk.</summary>
    public bool IsMetBy(MachineDisk disk) => this == Of(disk);
}

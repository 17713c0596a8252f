namespace Unikraft.Platform.Volumes;

/// <summary>A volume that is attached to an instance. Guarded by the lock of the catalog.</summary>
internal sealed class VolumeMount(StoredVolume volume, InstanceVolumes owner, int slot, string at, bool isReadOnly)
{
    public StoredVolume Volume { get; } = volume;

    public InstanceVolumes Owner { get; } = owner;

    public int Slot { get; } = slot;

    public string At { get; } = at;

    public bool IsReadOnly { get; } = isReadOnly;

    /// <summary>What waits for the instance to stop.</summary>
    public VolumeUpdate? Pending { get; set; }

    /// <summary>The disk, while the instance has a machine.</summary>
    public VolumeDisk? Disk { get; set; }
}

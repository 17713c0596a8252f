namespace Unikraft.Platform;

/// <summary>What is on a volume when it is made. Names and numbers do not change between versions.</summary>
public enum VolumeFilesystem
{
    /// <summary>An empty ext4 file system, made by the host's <c>mkfs.ext4</c>.</summary>
    Ext4 = 0,

    /// <summary>Nothing but zeroes; for a volume that is made of something else, whatever that holds.</summary>
    None = 1,

    /// <summary>A directory of the host, which is no block device.</summary>
    Virtiofs = 2,
}

namespace Unikraft.Platform;

/// <summary>What waits until an instance is stopped.</summary>
public enum VolumeUpdate
{
    /// <summary>The volume is attached then, or when the instance goes on from a snapshot before that.</summary>
    Attach = 1,

    /// <summary>The volume is detached then.</summary>
    Detach = 2,
}

namespace Unikraft.Platform;

/// <summary>What a data directory survives: see docs/data-directory.md.</summary>
public enum Durability
{
    /// <summary>What an operation has returned from is there after a crash of the host, or a power cut.</summary>
    Synced = 0,

    /// <summary>
    /// What an operation has returned from is there after a crash of the process. When the host itself crashes, what it has not written by itself may be lost,
    /// and what was half written is found and dropped.
    /// </summary>
    HostManaged = 1,
}

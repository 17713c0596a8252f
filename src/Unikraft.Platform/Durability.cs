namespace Unikraft.Platform;

/// <summary>What a data directory survives: see docs/data-directory.md.</summary>
public enum Durability
{
    /// <summary>What an operation has returned from is there after a crash of the host, or a power cut.</summary>
    Synced = 0,

    /// <summary>
    /// What an operation has returned from is there after a crash of the process. When the host itself crashes, what it has not written by itself may be lost:
    /// the last changes of resources are undone, up to those that were made since the platform was opened, and of what is left half written nothing is used, but reported by <see cref="DataDamageException"/> if a resource needs it.
    /// What was there when the platform was opened is synced, and so are volumes: what a guest has flushed is there.
    /// </summary>
    HostManaged = 1,
}

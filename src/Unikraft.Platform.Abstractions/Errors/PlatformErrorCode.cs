namespace Unikraft.Platform;

/// <summary>The stable code of a <see cref="PlatformException"/>. Names and numbers do not change between versions.</summary>
public enum PlatformErrorCode
{
    /// <summary>A request is incomplete, contradicts itself or is out of range.</summary>
    InvalidRequest = 1,

    /// <summary>There is no such instance, checkpoint or template.</summary>
    NotFound = 2,

    /// <summary>The name is taken.</summary>
    AlreadyExists = 3,

    /// <summary>The resource is in a state in which this cannot be done.</summary>
    WrongState = 4,

    /// <summary>A snapshot of the source is being taken already. Transient.</summary>
    SnapshotPending = 5,

    /// <summary>The wait is over before what was waited for has happened. The operation itself goes on.</summary>
    TimedOut = 6,

    /// <summary>The image cannot be used. See <see cref="ImageException.Error"/>.</summary>
    InvalidImage = 7,

    /// <summary>The backend cannot be used on this host.</summary>
    HypervisorUnavailable = 8,

    /// <summary>The backend failed in what it was asked to do.</summary>
    HypervisorFailed = 9,

    /// <summary>A file of a snapshot is missing, damaged or not the right one. See <see cref="SnapshotFileException.Error"/>.</summary>
    InvalidSnapshotFile = 10,

    /// <summary>The host could not read or write a file, for example because the disk is full.</summary>
    StorageFailed = 11,

    /// <summary>A block device could not do what it was asked to do. See <see cref="Volumes.BlockDeviceException.Error"/>.</summary>
    BlockDeviceFailed = 12,

    /// <summary>A file cannot be used as a disk image. See <see cref="Volumes.DiskImageException.Error"/>.</summary>
    InvalidDiskImage = 13,

    /// <summary>The resource has a delete lock.</summary>
    DeletionProtected = 14,

    /// <summary>The platform has a licence that is not valid or does not include the feature.</summary>
    InsufficientLicense = 20,

    /// <summary>A quota of the platform is used up. See <see cref="QuotaExceededException.Quota"/>.</summary>
    QuotaExceeded = 21,

    /// <summary>What was asked for needs block volumes, and the instance has another one.</summary>
    UnsupportedVolume = 30,

    /// <summary>The volume is in use in a way that excludes what was asked for.</summary>
    VolumeBusy = 31,

    /// <summary>A program of the host is missing, or failed.</summary>
    ToolMissing = 32,

    /// <summary>Another platform has the data directory open. Transient.</summary>
    DataDirectoryInUse = 40,

    /// <summary>A data directory or an archive was written by a newer version of the platform.</summary>
    UnknownDataVersion = 41,

    /// <summary>A file of the data directory is not as it was written. See <see cref="DataDamageException"/>.</summary>
    DataDamaged = 42,

    /// <summary>An archive of a checkpoint is incomplete, damaged, or made for another machine. See <see cref="CheckpointArchiveException"/>.</summary>
    InvalidArchive = 43,

    /// <summary>A snapshot cannot be restored on this host, but where it was taken. See <see cref="IncompatibleMachineException"/>.</summary>
    IncompatibleMachine = 44,
}

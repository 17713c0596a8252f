namespace Unikraft.Platform.Volumes;

/// <summary>Why a block device could not do what it was asked to do. Names and numbers do not change between versions.</summary>
public enum BlockDeviceError
{
    /// <summary>The host cannot read or write.</summary>
    InputOutput = 1,

    /// <summary>There is no more room on the host. Once there is, the same request succeeds.</summary>
    NoSpace = 2,

    /// <summary>The device is read-only.</summary>
    ReadOnly = 3,

    /// <summary>The range is not all on the device.</summary>
    OutOfRange = 4,

    /// <summary>What the device stores its data in is damaged.</summary>
    Corrupt = 5,
}

namespace Unikraft.Platform.Volumes;

/// <summary>What is wrong with a disk image. Names and numbers do not change between versions.</summary>
public enum DiskImageError
{
    /// <summary>There is no such file, or it cannot be opened.</summary>
    Unreadable = 1,

    /// <summary>Another user of the file has it open in a way that excludes this one.</summary>
    InUse = 2,

    /// <summary>The file is not in the format it was said to be in.</summary>
    WrongFormat = 3,

    /// <summary>The file uses a version or a feature of its format that is not supported.</summary>
    Unsupported = 4,

    /// <summary>The file contradicts itself.</summary>
    Corrupt = 5,

    /// <summary>The image names a backing file that it may not name, or the backing files form a loop or too long a chain.</summary>
    BackingFileRefused = 6,

    /// <summary>The size is out of range.</summary>
    InvalidSize = 7,
}

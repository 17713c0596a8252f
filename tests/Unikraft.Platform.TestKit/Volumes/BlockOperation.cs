namespace Unikraft.Platform.TestKit;

/// <summary>What a block device is asked to do.</summary>
public enum BlockOperation
{
    /// <summary>A read.</summary>
    Read,

    /// <summary>A write.</summary>
    Write,

    /// <summary>A flush.</summary>
    Flush,

    /// <summary>A discard.</summary>
    Discard,

    /// <summary>Zeroes to be written.</summary>
    WriteZeroes,
}

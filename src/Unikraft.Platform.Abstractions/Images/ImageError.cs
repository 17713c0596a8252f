namespace Unikraft.Platform;

/// <summary>What is wrong with an image, or with an image and the machine it should run on.</summary>
public enum ImageError
{
    /// <summary>The image cannot be read.</summary>
    Unreadable,

    /// <summary>The image is of no format that the backend knows.</summary>
    UnknownFormat,

    /// <summary>The image ends before something that its headers promise.</summary>
    Truncated,

    /// <summary>The image is of a known format, but for another class of machine (32-bit, big-endian, another processor).</summary>
    WrongMachine,

    /// <summary>The image is of a known format, but of a kind that cannot be entered, for example dynamically linked.</summary>
    Unsupported,

    /// <summary>A header contradicts itself or another one.</summary>
    Malformed,

    /// <summary>A segment lies outside the addresses that an image may use.</summary>
    SegmentOutOfRange,

    /// <summary>Two segments share a page.</summary>
    SegmentOverlap,

    /// <summary>The image does not fit into the memory of the machine.</summary>
    MemoryTooSmall,
}

namespace Unikraft.Platform.Volumes;

/// <summary>A file cannot be used as a disk image.</summary>
/// <param name="error">What is wrong.</param>
/// <param name="path">The file.</param>
/// <param name="message">What is wrong in words, and what to do next.</param>
/// <param name="innerException">The cause, if there is one.</param>
public sealed class DiskImageException(DiskImageError error, string path, string message, Exception? innerException = null)
    : PlatformException(PlatformErrorCode.InvalidDiskImage, message, innerException)
{
    /// <summary>What is wrong.</summary>
    public DiskImageError Error { get; } = error;

    /// <summary>The file.</summary>
    public string Path { get; } = path;
}

namespace Unikraft.Platform;

/// <summary>The host could not read or write a file. What was to be written is not there.</summary>
/// <param name="path">The file or directory.</param>
/// <param name="message">What failed, with which error of the host, and what to do about it.</param>
/// <param name="isFull">Whether there is no room left.</param>
public sealed class StorageException(string path, string message, bool isFull = false)
    : PlatformException(PlatformErrorCode.StorageFailed, message)
{
    /// <summary>The file or directory.</summary>
    public string Path { get; } = path;

    /// <summary>Whether there is no room left on the disk, or none within the quota.</summary>
    public bool IsFull { get; } = isFull;
}

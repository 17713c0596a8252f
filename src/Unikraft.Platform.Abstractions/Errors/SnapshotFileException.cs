namespace Unikraft.Platform;

/// <summary>A file of a snapshot cannot be used. No machine has run on it.</summary>
/// <param name="error">What is wrong.</param>
/// <param name="path">The file.</param>
/// <param name="snapshots">The snapshots that need it.</param>
/// <param name="message">What is wrong in words, what depends on it, and what to do about it.</param>
/// <param name="innerException">The cause, if there is one.</param>
public sealed class SnapshotFileException(
    SnapshotFileError error,
    string path,
    IReadOnlyList<Guid> snapshots,
    string message,
    Exception? innerException = null)
    : PlatformException(PlatformErrorCode.InvalidSnapshotFile, message, innerException)
{
    /// <summary>What is wrong.</summary>
    public SnapshotFileError Error { get; } = error;

    /// <summary>The file.</summary>
    public string Path { get; } = path;

    /// <summary>The snapshots of the directory that need the file.</summary>
    public IReadOnlyList<Guid> Snapshots { get; } = snapshots;
}

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>
/// A file is not what it should be. Thrown by those who read it, who do not know what else depends on it; callers of the library get a
/// <see cref="SnapshotFileException"/>.
/// </summary>
/// <param name="error">What is wrong.</param>
/// <param name="message">What is wrong in words, to follow the name of the file.</param>
internal sealed class FileDamageException(SnapshotFileError error, string message) : FormatException(message)
{
    internal SnapshotFileError Error { get; } = error;

    internal static FileDamageException Damaged(string message) => new(SnapshotFileError.Damaged, message);
}

namespace Unikraft.Platform;

/// <summary>An archive of a checkpoint cannot be imported. Nothing of it was.</summary>
/// <param name="path">The archive.</param>
/// <param name="isIncompatible">Whether the archive is sound, but this host cannot run what is in it.</param>
/// <param name="message">What is wrong with what, and what to do next.</param>
/// <param name="innerException">The cause, if there is one.</param>
public sealed class CheckpointArchiveException(string path, bool isIncompatible, string message, Exception? innerException = null)
    : PlatformException(PlatformErrorCode.InvalidArchive, message, innerException)
{
    /// <summary>The archive.</summary>
    public string Path { get; } = path;

    /// <summary>Whether the archive is sound, but this host cannot run what is in it.</summary>
    public bool IsIncompatible { get; } = isIncompatible;
}

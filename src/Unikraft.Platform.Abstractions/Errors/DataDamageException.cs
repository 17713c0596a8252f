namespace Unikraft.Platform;

/// <summary>A file of the data directory is not as it was written. What does not depend on it goes on working.</summary>
/// <param name="path">The file.</param>
/// <param name="dependents">The UUIDs of the resources that depend on it; empty when all do.</param>
/// <param name="message">What is wrong, what depends on it, and what to do about it.</param>
/// <param name="innerException">The cause, if there is one.</param>
public sealed class DataDamageException(string path, IReadOnlyList<Guid> dependents, string message, Exception? innerException = null)
    : PlatformException(PlatformErrorCode.DataDamaged, message, innerException)
{
    /// <summary>The file.</summary>
    public string Path { get; } = path;

    /// <summary>The UUIDs of the resources that depend on it; empty when all do.</summary>
    public IReadOnlyList<Guid> Dependents { get; } = dependents;
}

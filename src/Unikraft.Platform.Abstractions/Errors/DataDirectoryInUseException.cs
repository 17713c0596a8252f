namespace Unikraft.Platform;

/// <summary>Another platform, in this process or in another one, has the data directory open.</summary>
/// <param name="path">The data directory.</param>
public sealed class DataDirectoryInUseException(string path) : PlatformException(
    PlatformErrorCode.DataDirectoryInUse,
    $"The data directory '{path}' is open elsewhere, in this process or in another one. Close the platform there, or use a directory of your own.")
{
    /// <summary>The data directory.</summary>
    public string Path { get; } = path;

    /// <inheritdoc/>
    public override bool IsTransient => true;
}

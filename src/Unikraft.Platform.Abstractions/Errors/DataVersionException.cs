namespace Unikraft.Platform;

/// <summary>A data directory or an archive was written by a newer version of the platform. Nothing was changed.</summary>
/// <param name="path">The directory or archive.</param>
/// <param name="version">The version that it was written in.</param>
/// <param name="supported">The newest version that this version of the platform knows.</param>
public sealed class DataVersionException(string path, int version, int supported) : PlatformException(
    PlatformErrorCode.UnknownDataVersion,
    FormattableString.Invariant(
        $"'{path}' is in version {version} of its format; this version of the platform knows up to {supported}. Use the version of the platform that wrote it, or a newer one."))
{
    /// <summary>The directory or archive.</summary>
    public string Path { get; } = path;

    /// <summary>The version that it was written in.</summary>
    public int Version { get; } = version;
}

namespace Unikraft.Platform;

/// <summary>The volume is in use in a way that excludes what was asked for. Nothing was done.</summary>
/// <param name="volume">The UUID of the volume.</param>
/// <param name="message">Who uses it, and what to do.</param>
public sealed class VolumeBusyException(Guid volume, string message) : PlatformException(PlatformErrorCode.VolumeBusy, message)
{
    /// <summary>The UUID of the volume.</summary>
    public Guid Volume { get; } = volume;
}

namespace Unikraft.Platform.Volumes;

/// <summary>A block device could not do what it was asked to do.</summary>
/// <param name="error">Why.</param>
/// <param name="device">The device, for a file its path.</param>
/// <param name="message">What failed, and what to do next.</param>
/// <param name="innerException">The cause, if there is one.</param>
public sealed class BlockDeviceException(BlockDeviceError error, string device, string message, Exception? innerException = null)
    : PlatformException(PlatformErrorCode.BlockDeviceFailed, message, innerException)
{
    /// <summary>Why.</summary>
    public BlockDeviceError Error { get; } = error;

    /// <summary>The device, for a file its path.</summary>
    public string Device { get; } = device;

    /// <inheritdoc/>
    public override bool IsTransient => Error == BlockDeviceError.NoSpace;
}

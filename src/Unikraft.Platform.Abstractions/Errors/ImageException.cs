namespace Unikraft.Platform;

/// <summary>An image cannot be used.</summary>
/// <param name="error">What is wrong.</param>
/// <param name="image">The name of the image.</param>
/// <param name="message">What is wrong in words, with the numbers that do not fit.</param>
/// <param name="innerException">The cause, if there is one.</param>
public sealed class ImageException(ImageError error, string image, string message, Exception? innerException = null)
    : PlatformException(PlatformErrorCode.InvalidImage, message, innerException)
{
    /// <summary>What is wrong.</summary>
    public ImageError Error { get; } = error;

    /// <summary>The name of the image.</summary>
    public string Image { get; } = image;
}

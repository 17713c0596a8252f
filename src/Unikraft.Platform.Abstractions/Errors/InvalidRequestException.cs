namespace Unikraft.Platform;

/// <summary>A request is incomplete, contradicts itself or is out of range. Nothing was done.</summary>
/// <param name="message">What is wrong, and what is allowed.</param>
public sealed class InvalidRequestException(string message) : PlatformException(PlatformErrorCode.InvalidRequest, message);

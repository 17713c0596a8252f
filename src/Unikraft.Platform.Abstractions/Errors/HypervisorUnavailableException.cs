namespace Unikraft.Platform;

/// <summary>The backend cannot be used on this host.</summary>
/// <param name="message">Why, and what to do about it.</param>
public sealed class HypervisorUnavailableException(string message)
    : PlatformException(PlatformErrorCode.HypervisorUnavailable, message);

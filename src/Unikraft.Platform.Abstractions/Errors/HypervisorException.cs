namespace Unikraft.Platform;

/// <summary>The backend failed in what it was asked to do.</summary>
/// <param name="message">What failed, and with which error of the host.</param>
/// <param name="innerException">The cause, if there is one.</param>
public sealed class HypervisorException(string message, Exception? innerException = null)
    : PlatformException(PlatformErrorCode.HypervisorFailed, message, innerException);

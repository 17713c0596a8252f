namespace Unikraft.Platform;

/// <summary>The base of every error that the platform reports about a request that was well-formed as a method call.</summary>
public class PlatformException : Exception
{
    /// <summary>Creates the error.</summary>
    /// <param name="code">The stable code.</param>
    /// <param name="message">What is wrong with what, and what to do next.</param>
    /// <param name="innerException">The cause, if there is one.</param>
    public PlatformException(PlatformErrorCode code, string message, Exception? innerException = null)
        : base(message, innerException) => Code = code;

    /// <summary>The stable code.</summary>
    public PlatformErrorCode Code { get; }

    /// <summary>Whether the same call may succeed later without anything being changed.</summary>
    public virtual bool IsTransient => Code is PlatformErrorCode.SnapshotPending or PlatformErrorCode.TimedOut;
}

namespace Unikraft.Platform;

/// <summary>What was waited for has not happened in time. The operation itself goes on.</summary>
/// <param name="instance">The instance as it was when the time was up.</param>
/// <param name="message">What was waited for.</param>
public sealed class OperationTimedOutException(Instance instance, string message) : PlatformException(PlatformErrorCode.TimedOut, message)
{
    /// <summary>The instance as it was when the time was up.</summary>
    public Instance Instance { get; } = instance;
}

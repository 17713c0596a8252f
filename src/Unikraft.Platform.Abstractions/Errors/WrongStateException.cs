namespace Unikraft.Platform;

/// <summary>The instance is in a state in which the operation cannot be done.</summary>
/// <param name="message">What cannot be done, and in which state the resource is.</param>
/// <param name="state">That state.</param>
public sealed class WrongStateException(string message, InstanceState state) : PlatformException(PlatformErrorCode.WrongState, message)
{
    /// <summary>The state the instance was in.</summary>
    public InstanceState State { get; } = state;
}

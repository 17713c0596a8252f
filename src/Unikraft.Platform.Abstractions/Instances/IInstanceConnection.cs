namespace Unikraft.Platform;

/// <summary>A connection to an instance, counted until it is disposed of. See <see cref="IInstanceManager.ConnectAsync"/>.</summary>
public interface IInstanceConnection : IDisposable
{
    /// <summary>Completes when the instance does not run any more: whoever carries the connection should end it.</summary>
    Task Closed { get; }
}

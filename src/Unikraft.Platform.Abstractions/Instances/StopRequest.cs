namespace Unikraft.Platform;

/// <summary>How to stop an instance.</summary>
public sealed record StopRequest
{
    /// <summary>A stop that gives the guest no chance to shut down: its vCPUs are stopped where they are.</summary>
    public static StopRequest Forced { get; } = new() { Force = true };

    /// <summary>Whether the guest gets no chance to shut down. Default: false.</summary>
    public bool Force { get; init; }

    /// <summary>
    /// How long the guest has for shutting down when it is asked to, before its kernel kills the app: 0 kills at once, up to 24 hours, or
    /// <see cref="Timeout.InfiniteTimeSpan"/> for as long as it takes. Default: <see langword="null"/>, the platform's option. Cannot be combined with
    /// <see cref="Force"/>.
    /// </summary>
    public TimeSpan? GracePeriod { get; init; }

    /// <summary>
    /// How long the instance may finish serving its connections before it is stopped, while it takes no new ones: in the API <c>drain_timeout_ms</c>.
    /// Default: <see langword="null"/>, which is the same as 0: stop at once. <see cref="Timeout.InfiniteTimeSpan"/> (-1 ms): the platform's
    /// maximum. Otherwise up to that maximum. Cannot be combined with <see cref="Force"/>.
    /// </summary>
    public TimeSpan? DrainTimeout { get; init; }
}

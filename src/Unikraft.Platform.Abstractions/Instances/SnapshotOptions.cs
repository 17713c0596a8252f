namespace Unikraft.Platform;

/// <summary>How the snapshot of a running instance is taken, for a branch or a checkpoint of it. Without effect on a stopped one.</summary>
public sealed record SnapshotOptions
{
    /// <summary>The shortest <see cref="PauseBudget"/>, 1 ms: stopping a guest and reading its state takes a part of that already.</summary>
    public static TimeSpan MinPauseBudget { get; } = TimeSpan.FromMilliseconds(1);

    /// <summary>
    /// The longest that the source should stand still at a time, from <see cref="MinPauseBudget"/>. A guest that writes faster than it is copied is slowed down
    /// until it fits; <see cref="Timeout.InfiniteTimeSpan"/> lets it run and stand still for as long as it takes. Default: that of the platform's options, 10 ms.
    /// </summary>
    public TimeSpan? PauseBudget { get; init; }

    /// <summary>
    /// Whether to wait for one's turn when another snapshot of the source is being taken. Default: false, the request fails with
    /// <see cref="PlatformErrorCode.SnapshotPending"/>. Turns come in the order of the requests.
    /// </summary>
    public bool WaitForPending { get; init; }
}

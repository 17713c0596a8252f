namespace Unikraft.Platform.Hypervisors;

/// <summary>How a snapshot of a machine is to be taken.</summary>
public sealed record CaptureOptions
{
    /// <summary>The options that leave everything at its default.</summary>
    public static CaptureOptions Default { get; } = new();

    /// <summary>
    /// The longest that the machine should stand still at a time. One that writes faster than it is copied is held in slices of at most half of this,
    /// more and more of the time, until what is left can be copied within it. Default: <see cref="Timeout.InfiniteTimeSpan"/>, never hold it before the cut.
    /// </summary>
    public TimeSpan PauseBudget { get; init; } = Timeout.InfiniteTimeSpan;

    /// <summary>Cuts the disks of the machine at the moment of the snapshot. Default: <see langword="null"/>, nobody does.</summary>
    public IDiskCut? Disks { get; init; }
}

namespace Unikraft.Platform;

/// <summary>A reader of transitions was so slow that some are no longer kept. Look up the present states and watch again.</summary>
/// <param name="missed">How many transitions are lost to the reader.</param>
public sealed class TransitionsMissedException(long missed) : PlatformException(
    PlatformErrorCode.TransitionsMissed,
    FormattableString.Invariant($"The reader fell behind: {missed} transitions are no longer kept. Look up the present states and watch again"))
{
    /// <summary>How many transitions are lost to the reader.</summary>
    public long Missed { get; } = missed;
}

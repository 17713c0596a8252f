using System.Collections.Immutable;

namespace Unikraft.Platform;

/// <summary>A bucket of the histogram of wake-up latencies. Buckets are not cumulative.</summary>
/// <param name="UpperBound">The longest latency that it counts; <see langword="null"/> for the last bucket, which counts all longer ones.</param>
/// <param name="Count">How many latencies it has counted.</param>
public sealed record WakeupBucket(TimeSpan? UpperBound, long Count)
{
    /// <summary>The upper bounds of all buckets but the last: 1, 2, 4, ... 4096 ms.</summary>
    public static ImmutableArray<TimeSpan> UpperBounds { get; } =
        [.. Enumerable.Range(0, 13).Select(static power => TimeSpan.FromMilliseconds(1 << power))];
}

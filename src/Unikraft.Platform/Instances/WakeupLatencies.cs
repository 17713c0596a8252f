using System.Collections.Immutable;

namespace Unikraft.Platform.Instances;

/// <summary>How long those had to wait whose connection started an instance. Guarded by the lock of the instance.</summary>
internal sealed class WakeupLatencies
{
    private readonly long[] _counts = new long[WakeupBucket.UpperBounds.Length + 1];

    public TimeSpan Sum { get; private set; }

    public void Record(TimeSpan latency)
    {
        Sum += latency;
        int bucket = 0;
        while (bucket < WakeupBucket.UpperBounds.Length && latency > WakeupBucket.UpperBounds[bucket])
        {
            bucket++;
        }

        _counts[bucket]++;
    }

    public ImmutableArray<WakeupBucket> ToBuckets() =>
    [
        .. _counts.Select((count, index) => new WakeupBucket(
            index < WakeupBucket.UpperBounds.Length ? WakeupBucket.UpperBounds[index] : null,
            count)),
    ];
}

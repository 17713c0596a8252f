using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>
/// Copies memory while the guest runs, round after round, until little enough is left for the cut. A guest that writes faster than it is copied
/// is held for a growing share of the time.
/// </summary>
internal sealed class PreCopy(RunControl control, DirtyTracker tracker, LayerWriter writer, TimeProvider timeProvider)
{
    /// <summary>So few pages that another round would not shorten the cut: 64 of them are copied in some 30 us.</summary>
    internal const int ResidueTarget = 64;

    /// <summary>A guest that writes as fast as it is copied gains nothing from more rounds.</summary>
    private const int MaxRounds = 6;

    /// <summary>The guest is held for at most so many times as long as it runs: it must get on, and less than that leaves nothing to copy.</summary>
    private const int MaxHoldShare = 64;

    /// <summary>Pages copied between two looks at the clock: some 50 us.</summary>
    private const int Step = 64;

    /// <summary>The pages of the last round.</summary>
    internal int LastRound { get; private set; }

    /// <summary>How long the guest was held, all together.</summary>
    internal TimeSpan Held { get; private set; }

    /// <summary>The longest that the guest was held at a time.</summary>
    internal TimeSpan LongestHold { get; private set; }

    /// <summary>Copies until the rest is small, or does not become smaller.</summary>
    /// <param name="budget">The longest that the cut should take.</param>
    /// <param name="affordablePages">The pages that can be copied within it.</param>
    /// <param name="hooks">Looks into it; <see langword="null"/> for nobody.</param>
    /// <param name="cancellationToken">Cancels the copying.</param>
    internal async ValueTask RunAsync(TimeSpan budget, int affordablePages, CaptureHooks? hooks, CancellationToken cancellationToken)
    {
        int previous = int.MaxValue;
        for (int round = 0; round < MaxRounds; round++)
        {
            LastRound = tracker.TakeRound(writer, cancellationToken);
            if (LastRound <= ResidueTarget || LastRound > previous / 4 * 3)
            {
                break;
            }

            previous = LastRound;
        }

        if (hooks?.AfterRounds is { } afterRounds)
        {
            await afterRounds().ConfigureAwait(false);
        }

        if (affordablePages == int.MaxValue)
        {
            return;
        }

        for (int share = 1; share <= MaxHoldShare && tracker.CountResidue() > affordablePages; share *= 2)
        {
            await RunThrottledAsync(budget / 2, share, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>One round in slices: the guest is held for one, and then runs for a fraction of its length.</summary>
    private async ValueTask RunThrottledAsync(TimeSpan slice, int share, CancellationToken cancellationToken)
    {
        LastRound = tracker.BeginRound();
        int next = 0;
        bool isUnfinished = true;
        while (isUnfinished)
        {
            long start = timeProvider.GetTimestamp();
            control.Pause();
            try
            {
                await control.WhenParked().WaitAsync(cancellationToken).ConfigureAwait(false);
                isUnfinished = CopyFor(start, slice);
            }
            finally
            {
                control.Resume();
            }

            long resumed = timeProvider.GetTimestamp();
            TimeSpan held = timeProvider.GetElapsedTime(start, resumed);
            Held += held;
            LongestHold = held > LongestHold ? held : LongestHold;
            isUnfinished = isUnfinished && CopyFor(resumed, held / share);
        }

        bool CopyFor(long start, TimeSpan time)
        {
            bool hasMore = true;
            while (hasMore && timeProvider.GetElapsedTime(start) < time)
            {
                hasMore = tracker.ContinueRound(writer, ref next, Step, cancellationToken);
            }

            return hasMore;
        }
    }
}

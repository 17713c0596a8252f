namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>Tells from the cuts so far how many pages can be copied within a pause. Shared by all machines of a host, whose memory is equally fast.</summary>
internal sealed class CutForecast
{
    /// <summary>What fewer pages cost says little about one page.</summary>
    private const int MinObservedPages = 64;

    /// <summary>How much the latest cut counts against all before it.</summary>
    private const double Weight = 0.25;

    /// <summary>One cut that the scheduler held up must not make all others look impossible.</summary>
    private const double MaxSurprise = 4;

    private readonly Lock _lock = new();

    // Those of the development machine; the first cuts correct them.
    private double _microsecondsPerPage = 0.7;
    private double _fixedMicroseconds = 250;

    /// <summary>Learns from a cut.</summary>
    /// <param name="pages">The pages that were copied in it.</param>
    /// <param name="copying">How long the copying took.</param>
    /// <param name="pause">How long the cut took all together.</param>
    internal void Observe(int pages, TimeSpan copying, TimeSpan pause)
    {
        lock (_lock)
        {
            _fixedMicroseconds = Learn(_fixedMicroseconds, (pause - copying).TotalMicroseconds);
            if (pages >= MinObservedPages)
            {
                _microsecondsPerPage = Learn(_microsecondsPerPage, copying.TotalMicroseconds / pages);
            }
        }
    }

    /// <summary>The number of pages that a cut can be expected to copy within a pause; any for an infinite one.</summary>
    internal int AffordablePages(TimeSpan budget)
    {
        lock (_lock)
        {
            return budget == Timeout.InfiniteTimeSpan
                ? int.MaxValue
                : (int)Math.Clamp((budget.TotalMicroseconds - _fixedMicroseconds) / _microsecondsPerPage, PreCopy.ResidueTarget, int.MaxValue);
        }
    }

    private static double Learn(double known, double observed) => known + Weight * (Math.Min(observed, MaxSurprise * known) - known);
}

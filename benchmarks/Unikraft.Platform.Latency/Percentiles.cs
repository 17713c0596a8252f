namespace Unikraft.Platform.Latency;

/// <summary>A distribution of samples, by nearest rank: every figure is a sample that occurred.</summary>
internal sealed record Percentiles(int Count, double P50, double P90, double P99, double Max)
{
    /// <summary>Sums samples up, of which there is at least one.</summary>
    internal static Percentiles Of(IEnumerable<double> samples)
    {
        double[] sorted = [.. samples.Order()];
        return new Percentiles(sorted.Length, Rank(sorted, 0.5), Rank(sorted, 0.9), Rank(sorted, 0.99), sorted[^1]);
    }

    /// <summary>Sums samples up; <see langword="null"/> when there are none.</summary>
    internal static Percentiles? OfAny(IReadOnlyCollection<double> samples) => samples.Count == 0 ? null : Of(samples);

    private static double Rank(double[] sorted, double share) => sorted[Math.Max(0, (int)Math.Ceiling(share * sorted.Length) - 1)];
}

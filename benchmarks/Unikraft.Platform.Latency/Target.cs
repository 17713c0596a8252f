using System.Globalization;

namespace Unikraft.Platform.Latency;

/// <summary>What one figure of a distribution should be.</summary>
internal sealed class Target
{
    private readonly Func<Percentiles, Percentiles?, Goal> _evaluate;

    private Target(Func<Percentiles, Percentiles?, Goal> evaluate) => _evaluate = evaluate;

    /// <summary>A figure is at most a value.</summary>
    internal static Target AtMost(Figure figure, double limit) =>
        new((subject, _) => new Goal($"{Name(figure)} <= {Text(limit)}", Of(subject, figure) <= limit));

    /// <summary>A figure is less than a value.</summary>
    internal static Target Below(Figure figure, double limit) =>
        new((subject, _) => new Goal($"{Name(figure)} < {Text(limit)}", Of(subject, figure) < limit));

    /// <summary>A figure is at least a value.</summary>
    internal static Target AtLeast(Figure figure, double limit) =>
        new((subject, _) => new Goal($"{Name(figure)} >= {Text(limit)}", Of(subject, figure) >= limit));

    /// <summary>A figure is at most so many times that of the floor.</summary>
    internal static Target AtMostFloorTimes(Figure figure, double factor) =>
        new((subject, floor) => new Goal(
            $"{Name(figure)} <= {Text(factor)} floor",
            floor is null ? null : Of(subject, figure) <= factor * Of(floor, figure)));

    /// <summary>A figure is at most so much above that of the floor.</summary>
    internal static Target AtMostFloorPlus(Figure figure, double surplus) =>
        new((subject, floor) => new Goal(
            $"{Name(figure)} <= floor + {Text(surplus)}",
            floor is null ? null : Of(subject, figure) <= Of(floor, figure) + surplus));

    /// <summary>Whether a distribution meets the target.</summary>
    internal Goal Evaluate(Percentiles subject, Percentiles? floor) => _evaluate(subject, floor);

    private static double Of(Percentiles percentiles, Figure figure) => figure switch
    {
        Figure.P50 => percentiles.P50,
        Figure.P99 => percentiles.P99,
        _ => percentiles.Max,
    };

    private static string Name(Figure figure) => figure switch
    {
        Figure.P50 => "p50",
        Figure.P99 => "p99",
        _ => "max",
    };

    private static string Text(double value) => value.ToString("0.###", CultureInfo.InvariantCulture);
}

using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// Twenty branches of one running instance in a row, all of which stay alive: the last over the second. The first one is left out, because the source has no layer
/// to build on yet. Once with a source that works a little before each branch, once with one that dirties 1 % of its memory at random
/// places, so that each branch has more to copy, until folding catches up, and once with one that is left alone.
/// </summary>
internal sealed class BranchSeries : IMeasure
{
    private const int Branches = 20;
    private const int FewPages = 10;
    private const int WarmUp = 2;
    private const double Limit = 1.5;

    public string Name => "branch.series";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        yield return await RunAsync(context.Samples(30, quick: 2), FewPages, cancellationToken);
        yield return await RunAsync(
            context.Samples(10, quick: 2),
            FixedResidue.PagesOf(BranchTotal.MemoryMb, BranchTotal.Share),
            cancellationToken);
        yield return await RunAsync(context.Samples(10, quick: 2), pages: 0, cancellationToken);
    }

    private async Task<Measurement> RunAsync(int samples, int pages, CancellationToken cancellationToken)
    {
        List<double> seconds = [];
        List<double> lasts = [];
        for (int i = -WarmUp; i < samples; i++)
        {
            (double second, double last) = await BranchTotal.SeriesAsync(Branches, pages, cancellationToken);
            if (i >= 0)
            {
                seconds.Add(second);
                lasts.Add(last);
            }
        }

        Percentiles early = Percentiles.Of(seconds);
        Percentiles late = Percentiles.Of(lasts);
        return Measurement.Of(
            Name,
            Measurement.Ratio,
            new Percentiles(late.Count, late.P50 / early.P50, late.P90 / early.P90, late.P99 / early.P99, late.Max / early.Max),
            floor: null,
            new JsonObject
            {
                ["memory_mb"] = BranchTotal.MemoryMb,
                ["dirty_pages"] = pages,
                ["branches"] = Branches,
                ["second_p50"] = Math.Round(early.P50, 1),
                ["last_p50"] = Math.Round(late.P50, 1),
                ["until"] = "first exit of the branch",
            },
            Target.AtMost(Figure.P50, Limit));
    }
}

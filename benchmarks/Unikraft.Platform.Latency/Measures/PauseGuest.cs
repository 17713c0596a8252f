namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// The same pauses as the guest sees them: the largest gap in its time stamp counter from before the kick until after the snapshot. What else takes
/// the processor away from the guest meanwhile is in it, in the floor as well.
/// </summary>
internal sealed class PauseGuest : IMeasure
{
    public string Name => "pause.guest";

    public IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, CancellationToken cancellationToken) =>
        FixedResidue.MeasureAllAsync(Name, context, inGuest: true, cancellationToken);
}

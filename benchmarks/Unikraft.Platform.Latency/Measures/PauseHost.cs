namespace Unikraft.Platform.Latency.Measures;

/// <summary>How long a snapshot keeps a guest standing still, from the kick until the vCPU goes on, with a known number of dirty pages.</summary>
internal sealed class PauseHost : IMeasure
{
    public string Name => "pause.host";

    public IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, CancellationToken cancellationToken) =>
        FixedResidue.MeasureAllAsync(Name, context, inGuest: false, cancellationToken);
}

namespace Unikraft.Platform.Latency;

/// <summary>Something that is measured. A new one is a class that implements this and a line in <see cref="Program"/>.</summary>
internal interface IMeasure
{
    /// <summary>The name, as <c>--measure</c> takes it and the results show it.</summary>
    string Name { get; }

    /// <summary>Measures, and gives one row for each set of parameters.</summary>
    IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, CancellationToken cancellationToken);
}

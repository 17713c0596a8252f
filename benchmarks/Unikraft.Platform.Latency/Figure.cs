namespace Unikraft.Platform.Latency;

/// <summary>A figure of a distribution.</summary>
internal enum Figure
{
    /// <summary>The median.</summary>
    P50,

    /// <summary>The 99th percentile.</summary>
    P99,

    /// <summary>The largest sample.</summary>
    Max,
}

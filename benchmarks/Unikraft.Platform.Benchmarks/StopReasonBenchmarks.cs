using BenchmarkDotNet.Attributes;

namespace Unikraft.Platform.Benchmarks;

/// <summary>Decoding, printing and parsing where a shutdown came from.</summary>
[MemoryDiagnoser]
public class StopReasonBenchmarks
{
    private const string Mask = "FUP--";
    private const int Wire = 28;

    private StopReason _reason;

    /// <summary>Decodes once, so that no benchmark works on a constant.</summary>
    [GlobalSetup]
    public void SetUp() => _reason = StopReasons.Decode(Wire);

    /// <summary>Wire value to mask.</summary>
    [Benchmark]
    public string ToMask() => _reason.ToMask();

    /// <summary>The text of a mask to its value.</summary>
    [Benchmark]
    public StopReason ParseMask() => StopReasons.Parse(Mask);

    /// <summary>A decimal number to its value.</summary>
    [Benchmark]
    public StopReason ParseNumber() => StopReasons.Parse("28");
}

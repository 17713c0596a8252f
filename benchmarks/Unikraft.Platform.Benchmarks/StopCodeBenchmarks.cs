using System.Globalization;
using BenchmarkDotNet.Attributes;

namespace Unikraft.Platform.Benchmarks;

/// <summary>Decoding, printing and parsing the code with which a guest's kernel stopped.</summary>
[MemoryDiagnoser]
public class StopCodeBenchmarks
{
    private const uint OutOfMemory = 0x000C_7F04;

    private readonly char[] _text = new char[16];
    private StopCode _code;

    /// <summary>Decodes once, so that no benchmark works on a constant.</summary>
    [GlobalSetup]
    public void SetUp() => _code = new StopCode(OutOfMemory);

    /// <summary>The hexadecimal text to its value.</summary>
    [Benchmark]
    public StopCode ParseHexadecimal() => StopCode.Parse("0x000C7F04", CultureInfo.InvariantCulture);

    /// <summary>The decimal text to its value.</summary>
    [Benchmark]
    public StopCode ParseDecimal() => StopCode.Parse("818948", CultureInfo.InvariantCulture);

    /// <summary>The value to hexadecimal text, in a buffer.</summary>
    [Benchmark]
    public int Format() => _code.TryFormat(_text, out int written, default, CultureInfo.InvariantCulture) ? written : 0;

    /// <summary>The value in words.</summary>
    [Benchmark]
    public string Describe() => _code.Describe();
}

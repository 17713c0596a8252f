using System.Globalization;

namespace QuickStart;

/// <summary>What the sample prints, in colour where the terminal has it.</summary>
internal sealed class Transcript
{
    private readonly TextWriter _output = Console.Out;
    private readonly TimeProvider _time;
    private readonly long _start;
    private readonly bool _inColour;

    public Transcript(TimeProvider time)
    {
        _time = time;
        _start = time.GetTimestamp();
        _inColour = !Console.IsOutputRedirected && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"))
            && !string.Equals(Environment.GetEnvironmentVariable("TERM"), "dumb", StringComparison.Ordinal);
    }

    /// <summary>The heading of a chapter, with the time since the start.</summary>
    public void Chapter(string title)
    {
        _output.WriteLine();
        _output.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{Paint("1;36", $"[{_time.GetElapsedTime(_start).TotalSeconds,5:F2} s]")} {Paint("1", title)}"));
    }

    public void Say(string text) => _output.WriteLine($"  {text}");

    /// <summary>A line that a guest has written.</summary>
    public void Guest(string name, string line) => _output.WriteLine($"  {Paint("35", name.PadRight(8))} {Paint("2", "|")} {line}");

    /// <summary>What has happened, as the platform tells it.</summary>
    public void Fact(string what, string value) => _output.WriteLine($"  {what.PadRight(13)} {Paint("32", value)}");

    public void Warn(string text) => _output.WriteLine(Paint("33", text));

    /// <summary>A span in the unit that suits it.</summary>
    public static string Span(TimeSpan span) => span < TimeSpan.FromSeconds(1)
        ? string.Create(CultureInfo.InvariantCulture, $"{span.TotalMilliseconds:F2} ms")
        : string.Create(CultureInfo.InvariantCulture, $"{span.TotalSeconds:F2} s");

    public static string Bytes(long bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:N0} KiB");

    private string Paint(string code, string text) => _inColour ? $"\e[{code}m{text}\e[0m" : text;
}

using System.Text;

namespace Unikraft.Platform;

/// <summary>A part of the log of an instance.</summary>
/// <param name="Output">The bytes that the guest wrote.</param>
/// <param name="Start">The offset of the first byte of <paramref name="Output"/>, counted from the first byte ever logged.</param>
/// <param name="AvailableStart">The offset of the oldest byte that is kept; greater than 0 when the log has outgrown its capacity.</param>
/// <param name="AvailableEnd">The offset behind the newest byte.</param>
public sealed record LogOutput(ReadOnlyMemory<byte> Output, long Start, long AvailableStart, long AvailableEnd)
{
    /// <summary>The bytes as UTF-8 text.</summary>
    public string Text => Encoding.UTF8.GetString(Output.Span);

    /// <summary>The bytes as UTF-8 text.</summary>
    public override string ToString() => Text;
}

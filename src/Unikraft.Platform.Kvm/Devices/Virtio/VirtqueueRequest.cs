using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Devices.Virtio;

/// <summary>
/// A request of a driver: bytes to read, and room to write to, each in any number of pieces of guest memory. All pieces were checked.
/// </summary>
internal sealed class VirtqueueRequest(GuestMemory memory)
{
    private readonly List<Segment> _readable = [];
    private readonly List<Segment> _writable = [];

    /// <summary>What the driver knows it by.</summary>
    internal ushort Head { get; private set; }

    internal long ReadableLength { get; private set; }

    internal long WritableLength { get; private set; }

    internal void Begin(ushort head)
    {
        Head = head;
        ReadableLength = WritableLength = 0;
        _readable.Clear();
        _writable.Clear();
    }

    /// <exception cref="InvalidDataException">Something to read comes after room to write to.</exception>
    internal void Add(long address, uint length, bool isWritable)
    {
        if (isWritable)
        {
            _writable.Add(new Segment(address, length));
            WritableLength += length;
        }
        else if (_writable.Count > 0)
        {
            throw new InvalidDataException("A readable descriptor comes after a writable one.");
        }
        else
        {
            _readable.Add(new Segment(address, length));
            ReadableLength += length;
        }
    }

    /// <summary>Copies from what there is to read. What is read twice may differ.</summary>
    internal void Read(long offset, Span<byte> buffer)
    {
        foreach (Segment segment in _readable)
        {
            if (offset < segment.Length && !buffer.IsEmpty)
            {
                int count = (int)Math.Min(buffer.Length, segment.Length - offset);
                memory.Read(segment.Address + offset, count).CopyTo(buffer);
                buffer = buffer[count..];
                offset = 0;
            }
            else
            {
                offset = Math.Max(0, offset - segment.Length);
            }
        }

        ArgumentOutOfRangeException.ThrowIfNotEqual(buffer.Length, 0, nameof(buffer));
    }

    /// <summary>Copies to where there is room.</summary>
    internal void Write(long offset, ReadOnlySpan<byte> bytes)
    {
        foreach (Segment segment in _writable)
        {
            if (offset < segment.Length && !bytes.IsEmpty)
            {
                int count = (int)Math.Min(bytes.Length, segment.Length - offset);
                memory.Write(segment.Address + offset, bytes[..count]);
                bytes = bytes[count..];
                offset = 0;
            }
            else
            {
                offset = Math.Max(0, offset - segment.Length);
            }
        }

        ArgumentOutOfRangeException.ThrowIfNotEqual(bytes.Length, 0, nameof(bytes));
    }

    [StructLayout(LayoutKind.Auto)]
    private readonly record struct Segment(long Address, uint Length);
}

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
    private readonly GuestMemoryRange _range = memory.NewRange();
    private readonly List<Segment> _written = [];

    /// <summary>What the driver knows it by.</summary>
    internal ushort Head { get; private set; }

    internal long ReadableLength { get; private set; }

    internal long WritableLength { get; private set; }

    /// <summary>Where what there is to read begins; 0 when there is nothing.</summary>
    internal long Start => _readable.Count > 0 ? _readable[0].Address : 0;

    internal void Begin(ushort head)
    {
        Head = head;
        ReadableLength = WritableLength = 0;
        _readable.Clear();
        _writable.Clear();
        _written.Clear();
    }

    /// <exception cref="InvalidDataException">Something to read comes after room to write to.</exception>
    internal void Add(long address, uint length, bool isWritable)
    {
        if (isWritable)
        {
            Append(_writable, address, length);
            WritableLength += length;
        }
        else if (_writable.Count > 0)
        {
            throw new InvalidDataException("A readable descriptor comes after a writable one.");
        }
        else
        {
            Append(_readable, address, length);
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

    /// <summary>Copies to where there is room. It is marked as written when the request is given back.</summary>
    internal void Write(long offset, ReadOnlySpan<byte> bytes)
    {
        foreach (Segment segment in _writable)
        {
            if (offset < segment.Length && !bytes.IsEmpty)
            {
                int count = (int)Math.Min(bytes.Length, segment.Length - offset);
                bytes[..count].CopyTo(memory.Slice(segment.Address + offset, count));
                _written.Add(new Segment(segment.Address + offset, (uint)count));
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

    /// <summary>What there is to read, where it is: when that is one piece. Until the request has been given back, and it may change at any moment.</summary>
    internal bool TryMapReadable(long offset, int length, out ReadOnlyMemory<byte> bytes)
    {
        foreach (Segment segment in _readable)
        {
            if (offset < segment.Length)
            {
                bool isOne = length <= segment.Length - offset;
                bytes = isOne ? _range.Map(segment.Address + offset, length) : default;
                return isOne;
            }

            offset -= segment.Length;
        }

        bytes = default;
        return false;
    }

    /// <summary>Where there is room, when that is one piece. Until the request has been given back, when it is marked as written.</summary>
    internal bool TryMapWritable(int length, out Memory<byte> room)
    {
        bool isOne = _writable.Count > 0 && length <= _writable[0].Length;
        room = default;
        if (isOne)
        {
            room = _range.Map(_writable[0].Address, length);
            _written.Add(new Segment(_writable[0].Address, (uint)length));
        }

        return isOne;
    }

    /// <summary>Marks what was written to it. Behind the last write.</summary>
    internal void MarkWritten()
    {
        foreach (Segment segment in _written)
        {
            memory.MarkWritten(segment.Address, (int)segment.Length);
        }
    }

    // Drivers cut what is in one place into pieces of the length that the device takes.
    private static void Append(List<Segment> segments, long address, uint length)
    {
        if (segments.Count > 0 && segments[^1] is var last && last.Address + last.Length == address)
        {
            segments[^1] = last with { Length = last.Length + length };
        }
        else
        {
            segments.Add(new Segment(address, length));
        }
    }

    [StructLayout(LayoutKind.Auto)]
    private readonly record struct Segment(long Address, uint Length);
}

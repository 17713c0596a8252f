using System.Buffers;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>A range of guest memory for what reads and writes memory of the host, so that nothing is copied. Used again and again, for one range at a time.</summary>
/// <remarks>The guest may read and write the range at any moment. Not to be used when the memory has been disposed of.</remarks>
internal sealed unsafe class GuestMemoryRange(GuestMemory memory) : MemoryManager<byte>
{
    private long _address;
    private int _length;

    public override Span<byte> GetSpan() => memory.Slice(_address, _length);

    public override MemoryHandle Pin(int elementIndex = 0)
    {
        // Guest memory does not move.
        Span<byte> span = GetSpan();
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)elementIndex, (uint)span.Length, nameof(elementIndex));
        return new MemoryHandle((byte*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(span)) + elementIndex);
    }

    public override void Unpin()
    {
    }

    /// <summary>Becomes another range. Who writes to it calls <see cref="GuestMemory.MarkWritten"/> afterwards.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is not all in guest memory.</exception>
    internal Memory<byte> Map(long address, int length)
    {
        _ = memory.Slice(address, length);
        (_address, _length) = (address, length);
        return CreateMemory(length);
    }

    protected override void Dispose(bool disposing)
    {
    }
}

using System.Buffers.Binary;

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>One register that does something when it is written, and reads as a constant: a debug-exit or panic port.</summary>
/// <param name="value">What a read gives, in its lowest byte.</param>
/// <param name="written">Takes what is written, zero-extended.</param>
internal sealed class ActionDevice(byte value, Action<uint> written) : IMmioDevice
{
    public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data)
    {
        data.Clear();
        data[0] = value;
    }

    public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data)
    {
        Span<byte> wide = stackalloc byte[sizeof(ulong)];
        wide.Clear();
        data.CopyTo(wide);
        written(BinaryPrimitives.ReadUInt32LittleEndian(wide));
    }
}

using System.Buffers.Binary;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>The reference counts of a run of clusters, as they are in the file.</summary>
internal sealed class RefcountBlock(byte[] bytes, int order)
{
    internal byte[] Bytes { get; } = bytes;

    internal bool IsChanged { get; set; }

    /// <summary>When it was used last.</summary>
    internal long LastUse { get; set; }

    internal ulong this[int index]
    {
        get => order switch
        {
            < 3 => (ulong)(Bytes[index >> (3 - order)] >> Shift(index)) & Mask,
            3 => Bytes[index],
            4 => BinaryPrimitives.ReadUInt16BigEndian(Bytes.AsSpan(index * 2)),
            5 => BinaryPrimitives.ReadUInt32BigEndian(Bytes.AsSpan(index * 4)),
            _ => BinaryPrimitives.ReadUInt64BigEndian(Bytes.AsSpan(index * 8)),
        };
        set
        {
            IsChanged = true;
            switch (order)
            {
                case < 3:
                    ref byte shared = ref Bytes[index >> (3 - order)];
                    shared = (byte)((shared & ~(int)(Mask << Shift(index))) | (int)(value << Shift(index)));
                    break;
                case 3:
                    Bytes[index] = (byte)value;
                    break;
                case 4:
                    BinaryPrimitives.WriteUInt16BigEndian(Bytes.AsSpan(index * 2), (ushort)value);
                    break;
                case 5:
                    BinaryPrimitives.WriteUInt32BigEndian(Bytes.AsSpan(index * 4), (uint)value);
                    break;
                default:
                    BinaryPrimitives.WriteUInt64BigEndian(Bytes.AsSpan(index * 8), value);
                    break;
            }
        }
    }

    // Counts narrower than a byte: 1 << order bits each, the first in the lowest bits.
    private ulong Mask => (1UL << (1 << order)) - 1;

    private int Shift(int index) => (index & ((8 >> order) - 1)) << order;
}

using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>Tables of 64-bit numbers in a file, which are big-endian there. What is beyond the end of the file reads as zero.</summary>
internal static class EntryTable
{
    internal static ulong[] Read(IImageFile file, long offset, int entries)
    {
        ulong[] table = new ulong[entries];
        Span<byte> bytes = MemoryMarshal.AsBytes(table.AsSpan());
        bytes[file.Read(offset, bytes)..].Clear();
        BinaryPrimitives.ReverseEndianness(table, table.AsSpan());
        return table;
    }

    internal static void Write(IImageFile file, long offset, ReadOnlySpan<ulong> entries)
    {
        int length = entries.Length * sizeof(ulong);
        byte[] bytes = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            BinaryPrimitives.ReverseEndianness(entries, MemoryMarshal.Cast<byte, ulong>(bytes.AsSpan(0, length)));
            file.Write(offset, bytes.AsSpan(0, length));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bytes);
        }
    }
}

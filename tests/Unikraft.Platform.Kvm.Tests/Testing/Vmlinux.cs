using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The kernel in a bzImage, as it was before it was packed.</summary>
internal static class Vmlinux
{
    private const uint Lz4Magic = 0x184C_2102;
    private const int SectorSize = 512;

    /// <summary>Unpacks it; of the ways in which kernels are packed, LZ4 is the one of Debian's.</summary>
    internal static byte[] Unpack(ReadOnlySpan<byte> image)
    {
        int setup = (image[0x1F1] + 1) * SectorSize;
        ReadOnlySpan<byte> packed = image.Slice(setup + BinaryPrimitives.ReadInt32LittleEndian(image[0x248..]), BinaryPrimitives.ReadInt32LittleEndian(image[0x24C..]));
        Assert.Equal(Lz4Magic, BinaryPrimitives.ReadUInt32LittleEndian(packed));

        // At the end stands the size of what comes out.
        byte[] kernel = new byte[BinaryPrimitives.ReadInt32LittleEndian(packed[^sizeof(int)..])];
        packed = packed[sizeof(uint)..^sizeof(int)];
        int written = 0;
        while (!packed.IsEmpty)
        {
            int size = BinaryPrimitives.ReadInt32LittleEndian(packed);
            written += UnpackBlock(packed.Slice(sizeof(int), size), kernel.AsSpan(written));
            packed = packed[(sizeof(int) + size)..];
        }

        Assert.Equal(kernel.Length, written);
        return kernel;
    }

    /// <summary>The kernel without the note that makes it one for PVH.</summary>
    internal static byte[] WithoutPvh(byte[] kernel)
    {
        const byte AnotherType = 99;
        ReadOnlySpan<byte> note = [18, 0, 0, 0, (byte)'X', (byte)'e', (byte)'n', 0];
        int at = kernel.AsSpan().IndexOf(note);
        Assert.NotEqual(-1, at);
        Assert.Equal(-1, kernel.AsSpan(at + note.Length).IndexOf(note));
        byte[] other = [.. kernel];
        other[at] = AnotherType;
        return other;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static int UnpackBlock(ReadOnlySpan<byte> block, Span<byte> output)
    {
        const int LongLength = 15;
        const int LeastMatch = 4;
        int read = 0;
        int written = 0;
        while (true)
        {
            int token = block[read++];
            int literals = token >> 4;
            if (literals == LongLength)
            {
                literals += ReadMore(block, ref read);
            }

            block.Slice(read, literals).CopyTo(output[written..]);
            read += literals;
            written += literals;
            if (read == block.Length)
            {
                return written;
            }

            int distance = BinaryPrimitives.ReadUInt16LittleEndian(block[read..]);
            read += sizeof(ushort);
            int match = (token & LongLength) + LeastMatch;
            if (match == LongLength + LeastMatch)
            {
                match += ReadMore(block, ref read);
            }

            // What is copied may be what is being written.
            while (match > 0)
            {
                int length = Math.Min(match, distance);
                output.Slice(written - distance, length).CopyTo(output[written..]);
                written += length;
                match -= length;
            }
        }
    }

    private static int ReadMore(ReadOnlySpan<byte> block, ref int read)
    {
        int length = 0;
        byte more;
        do
        {
            more = block[read++];
            length += more;
        }
        while (more == byte.MaxValue);
        return length;
    }
}

using System.Buffers.Binary;

namespace Unikraft.Platform.Kvm.Tests.Boot;

/// <summary>Puts an ELF file together, also one that is wrong in any way wanted. The defaults make the smallest good image.</summary>
internal sealed class ElfBuilder
{
    internal const int HeaderSize = 64;
    internal const int ProgramHeaderSize = 56;
    internal const ulong Base = 0x10_0000;
    internal const uint Load = 1;
    internal const uint Dynamic = 2;
    internal const uint Interpreter = 3;
    internal const uint Execute = 1;
    internal const uint Write = 2;
    internal const uint Read = 4;

    internal byte Class { get; set; } = 2;

    internal byte Endianness { get; set; } = 1;

    internal byte IdentVersion { get; set; } = 1;

    internal ushort Type { get; set; } = 2;

    internal ushort Machine { get; set; } = 62;

    internal uint Version { get; set; } = 1;

    internal ulong Entry { get; set; } = Base;

    internal ulong? ProgramHeaderOffset { get; set; }

    internal ushort HeaderSizeField { get; set; } = HeaderSize;

    internal ushort ProgramHeaderSizeField { get; set; } = ProgramHeaderSize;

    internal ushort? Count { get; set; }

    internal List<Segment> Segments { get; } = [];

    /// <summary>What follows the headers.</summary>
    internal byte[] Content { get; set; } = [];

    /// <summary>An image of one executable page that holds some code.</summary>
    internal static ElfBuilder Program(params byte[] code)
    {
        ElfBuilder builder = new() { Content = code.Length == 0 ? [0x0F, 0x0B] : code };
        builder.Segments.Add(new Segment
        {
            Address = Base,
            Offset = HeaderSize + ProgramHeaderSize,
            FileSize = (ulong)builder.Content.Length,
            MemorySize = 0x1000,
            Flags = Read | Execute,
        });
        return builder;
    }

    internal byte[] Build()
    {
        byte[] file = new byte[HeaderSize + Segments.Count * ProgramHeaderSize + Content.Length];
        Span<byte> header = file;
        "\u007fELF"u8.CopyTo(header);
        header[4] = Class;
        header[5] = Endianness;
        header[6] = IdentVersion;
        BinaryPrimitives.WriteUInt16LittleEndian(header[16..], Type);
        BinaryPrimitives.WriteUInt16LittleEndian(header[18..], Machine);
        BinaryPrimitives.WriteUInt32LittleEndian(header[20..], Version);
        BinaryPrimitives.WriteUInt64LittleEndian(header[24..], Entry);
        BinaryPrimitives.WriteUInt64LittleEndian(header[32..], ProgramHeaderOffset ?? HeaderSize);
        BinaryPrimitives.WriteUInt16LittleEndian(header[52..], HeaderSizeField);
        BinaryPrimitives.WriteUInt16LittleEndian(header[54..], ProgramHeaderSizeField);
        BinaryPrimitives.WriteUInt16LittleEndian(header[56..], Count ?? (ushort)Segments.Count);
        for (int i = 0; i < Segments.Count; i++)
        {
            Span<byte> segment = header[(HeaderSize + i * ProgramHeaderSize)..];
            BinaryPrimitives.WriteUInt32LittleEndian(segment, Segments[i].Type);
            BinaryPrimitives.WriteUInt32LittleEndian(segment[4..], Segments[i].Flags);
            BinaryPrimitives.WriteUInt64LittleEndian(segment[8..], Segments[i].Offset);
            BinaryPrimitives.WriteUInt64LittleEndian(segment[16..], Segments[i].Address);
            BinaryPrimitives.WriteUInt64LittleEndian(segment[24..], Segments[i].Physical ?? Segments[i].Address);
            BinaryPrimitives.WriteUInt64LittleEndian(segment[32..], Segments[i].FileSize);
            BinaryPrimitives.WriteUInt64LittleEndian(segment[40..], Segments[i].MemorySize);
        }

        Content.CopyTo(file, file.Length - Content.Length);
        return file;
    }

    internal sealed record Segment
    {
        internal uint Type { get; set; } = Load;

        internal uint Flags { get; set; } = Read;

        internal ulong Offset { get; set; }

        internal ulong Address { get; set; }

        /// <summary>The physical address; that of <see cref="Address"/> unless said otherwise.</summary>
        internal ulong? Physical { get; set; }

        internal ulong FileSize { get; set; }

        internal ulong MemorySize { get; set; }
    }
}

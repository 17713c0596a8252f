using System.Buffers.Binary;
using System.Globalization;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Boot;

/// <summary>A static ELF64 executable, parsed and validated. The bytes come from outside and are not trusted.</summary>
/// <remarks>Layout and constants: System V ABI, ELF header and program header, 64-bit class.</remarks>
internal sealed class ElfImage
{
    /// <summary>The lowest address that a segment may have.</summary>
    internal const long LowestAddress = 0x10_0000;

    private const int HeaderSize = 64;
    private const int ProgramHeaderSize = 56;
    internal const int MaxSegments = 64;

    private const byte Class64 = 2;
    private const byte LittleEndian = 1;
    private const byte CurrentVersion = 1;
    private const ushort TypeExecutable = 2;
    private const ushort TypeShared = 3;
    private const ushort MachineX8664 = 62;

    private const uint SegmentLoad = 1;
    private const uint SegmentDynamic = 2;
    private const uint SegmentInterpreter = 3;

    private readonly string _name;

    private ElfImage(string name, ulong entryPoint, ElfSegment[] segments)
    {
        _name = name;
        EntryPoint = entryPoint;
        Segments = segments;
    }

    internal ulong EntryPoint { get; }

    /// <summary>The loadable segments, by ascending address.</summary>
    internal IReadOnlyList<ElfSegment> Segments { get; }

    /// <summary>The first page behind the image.</summary>
    internal long End => PageSize.RoundUp(Segments[^1].End);

    private static ReadOnlySpan<byte> Magic => [0x7F, (byte)'E', (byte)'L', (byte)'F'];

    /// <summary>Parses an image.</summary>
    /// <exception cref="ImageException">The bytes are not an image that a flat guest can be made of.</exception>
    internal static ElfImage Parse(string name, ReadOnlyMemory<byte> content)
    {
        ReadOnlySpan<byte> bytes = content.Span;
        if (!bytes.StartsWith(Magic))
        {
            // A file that is cut off inside the magic number is cut off, not unknown.
            throw bytes.Length > 0 && bytes.Length < Magic.Length && Magic.StartsWith(bytes)
                ? Truncated(name, "its magic number", Magic.Length, bytes.Length)
                : new ImageException(
                    ImageError.UnknownFormat,
                    name,
                    $"The image '{name}' is of an unknown format. The KVM backend boots static ELF64 executables.");
        }

        Require(name, bytes, HeaderSize, "its ELF header");
        ulong entryPoint = CheckHeader(name, bytes);
        ElfSegment[] segments = ReadSegments(name, content);
        if (segments.Length == 0)
        {
            throw Malformed(name, "has no segment to load");
        }

        if (!Array.Exists(segments, segment => segment.IsExecutable && entryPoint >= (ulong)segment.Address && entryPoint < (ulong)segment.End))
        {
            throw Malformed(name, $"enters at 0x{entryPoint:x}, which is in no executable segment");
        }

        return new ElfImage(name, entryPoint, segments);
    }

    /// <summary>Checks that the image, and what the platform puts behind it, fits into a memory.</summary>
    internal void RequireMemory(long needed, long available)
    {
        if (needed > available)
        {
            throw new ImageException(
                ImageError.MemoryTooSmall,
                _name,
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"The image '{_name}' needs at least {(needed + (1 << 20) - 1) >> 20} MiB of memory, but the instance has {available >> 20}."));
        }
    }

    private static ulong CheckHeader(string name, ReadOnlySpan<byte> bytes)
    {
        if (bytes[4] != Class64)
        {
            throw WrongMachine(name, "is not a 64-bit ELF");
        }

        if (bytes[5] != LittleEndian)
        {
            throw WrongMachine(name, "is not little-endian");
        }

        ushort type = BinaryPrimitives.ReadUInt16LittleEndian(bytes[16..]);
        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(bytes[18..]);
        if (machine != MachineX8664)
        {
            throw WrongMachine(name, $"is for ELF machine {machine}, not for x86-64 ({MachineX8664})");
        }

        if (bytes[6] != CurrentVersion || BinaryPrimitives.ReadUInt32LittleEndian(bytes[20..]) != CurrentVersion)
        {
            throw Malformed(name, "has an unknown ELF version");
        }

        if (type == TypeShared)
        {
            throw Unsupported(name, "is position-independent (ET_DYN)");
        }

        if (type != TypeExecutable)
        {
            throw Unsupported(name, $"is no executable (ELF type {type})");
        }

        ushort headerSize = BinaryPrimitives.ReadUInt16LittleEndian(bytes[52..]);
        ushort entrySize = BinaryPrimitives.ReadUInt16LittleEndian(bytes[54..]);
        if (headerSize < HeaderSize || entrySize != ProgramHeaderSize)
        {
            throw Malformed(name, $"has headers of unexpected sizes ({headerSize} and {entrySize})");
        }

        return BinaryPrimitives.ReadUInt64LittleEndian(bytes[24..]);
    }

    private static ElfSegment[] ReadSegments(string name, ReadOnlyMemory<byte> content)
    {
        ReadOnlySpan<byte> bytes = content.Span;
        ulong offset = BinaryPrimitives.ReadUInt64LittleEndian(bytes[32..]);
        ushort count = BinaryPrimitives.ReadUInt16LittleEndian(bytes[56..]);
        if (count > MaxSegments)
        {
            throw Malformed(name, $"has {count} program headers; at most {MaxSegments} are allowed");
        }

        if (offset > (ulong)bytes.Length)
        {
            throw Truncated(name, "its program headers", offset, bytes.Length);
        }

        Require(name, bytes, offset + (ulong)count * ProgramHeaderSize, "its program headers");
        List<ElfSegment> segments = [];
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> header = bytes.Slice((int)offset + i * ProgramHeaderSize, ProgramHeaderSize);
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(header);
            if (type is SegmentDynamic or SegmentInterpreter)
            {
                throw Unsupported(name, "is dynamically linked");
            }

            if (type == SegmentLoad && ReadSegment(name, content, header) is { } segment)
            {
                segments.Add(segment);
            }
        }

        segments.Sort(static (one, other) => one.Address.CompareTo(other.Address));
        for (int i = 1; i < segments.Count; i++)
        {
            if (PageSize.RoundUp(segments[i - 1].End) > (segments[i].Address & -PageSize.Bytes))
            {
                throw new ImageException(
                    ImageError.SegmentOverlap,
                    name,
                    $"Segments of the image '{name}' share a page: one ends at 0x{segments[i - 1].End:x}, one begins at 0x{segments[i].Address:x}.");
            }
        }

        return [.. segments];
    }

    private static ElfSegment? ReadSegment(string name, ReadOnlyMemory<byte> content, ReadOnlySpan<byte> header)
    {
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(header[4..]);
        ulong fileOffset = BinaryPrimitives.ReadUInt64LittleEndian(header[8..]);
        ulong address = BinaryPrimitives.ReadUInt64LittleEndian(header[16..]);
        ulong fileSize = BinaryPrimitives.ReadUInt64LittleEndian(header[32..]);
        ulong memorySize = BinaryPrimitives.ReadUInt64LittleEndian(header[40..]);
        if (fileSize > memorySize)
        {
            throw Malformed(name, $"has a segment at 0x{address:x} with more bytes in the file ({fileSize}) than in memory ({memorySize})");
        }

        if (memorySize == 0)
        {
            return null;
        }

        // Bounded one by one, so that no sum can overflow.
        if (address < (ulong)LowestAddress || address >= FlatGuestLayout.HeapWindowEnd || memorySize > FlatGuestLayout.HeapWindowEnd - address)
        {
            throw new ImageException(
                ImageError.SegmentOutOfRange,
                name,
                $"The image '{name}' has a segment at 0x{address:x} of 0x{memorySize:x} bytes; an image may use 0x{LowestAddress:x} and above.");
        }

        if (fileSize == 0)
        {
            // Nothing of it is in the file, wherever its offset points.
            return new ElfSegment((long)address, (long)memorySize, ReadOnlyMemory<byte>.Empty, (ElfSegmentAccess)flags);
        }

        ulong length = (ulong)content.Length;
        if (fileOffset > length || fileSize > length - fileOffset)
        {
            throw Truncated(name, $"its segment at 0x{address:x}", fileOffset > ulong.MaxValue - fileSize ? fileOffset : fileOffset + fileSize, content.Length);
        }

        return new ElfSegment((long)address, (long)memorySize, content.Slice((int)fileOffset, (int)fileSize), (ElfSegmentAccess)flags);
    }

    private static void Require(string name, ReadOnlySpan<byte> bytes, ulong needed, string what)
    {
        if ((ulong)bytes.Length < needed)
        {
            throw Truncated(name, what, needed, bytes.Length);
        }
    }

    private static ImageException Truncated(string name, string what, ulong needed, int length) => new(
        ImageError.Truncated,
        name,
        string.Create(
            CultureInfo.InvariantCulture,
            $"The image '{name}' ends before {what}: it has {length} bytes, {needed} are needed. Copy it again."));

    private static ImageException Truncated(string name, string what, int needed, int length) => Truncated(name, what, (ulong)needed, length);

    private static ImageException WrongMachine(string name, string what) =>
        new(ImageError.WrongMachine, name, $"The image '{name}' {what}. Build it for x86-64.");

    private static ImageException Unsupported(string name, string what) =>
        new(ImageError.Unsupported, name, $"The image '{name}' {what}. Link it statically at a fixed address (-static -no-pie).");

    private static ImageException Malformed(string name, string what) =>
        new(ImageError.Malformed, name, $"The image '{name}' {what}. Build it again.");
}

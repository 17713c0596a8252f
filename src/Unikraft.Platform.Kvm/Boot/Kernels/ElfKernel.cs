using System.Buffers.Binary;
using System.Globalization;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>A kernel in an ELF file, 32 or 64 bits wide, loaded by its physical addresses.</summary>
/// <remarks>
/// A PVH note and a multiboot header say what they are. The Linux 64-bit protocol has no mark in an ELF file; two kinds of kernel are booted by
/// it: Linux itself, whose virtual addresses are not its physical ones, and Unikraft, which has sections of its own. Any other ELF file is not
/// recognised, because it is a flat guest.
/// </remarks>
internal sealed class ElfKernel
{
    private const byte Class32 = 1;
    private const byte Class64 = 2;
    private const byte LittleEndian = 1;
    private const ushort TypeExecutable = 2;
    private const ushort TypeShared = 3;
    private const ushort Machine386 = 3;
    private const ushort MachineX8664 = 62;
    private const uint SegmentLoad = 1;
    private const uint SegmentNote = 4;
    private const int LeastHeaderSize = 52;
    private const int MaxHeaders = 64;
    private const int MaxSections = 4096;

    private const uint NotePhysicalEntry = 18;
    private const int NoteHeaderSize = 12;

    private readonly string _name;
    private readonly ReadOnlyMemory<byte> _content;
    private readonly bool _wide;

    private ElfKernel(string name, ReadOnlyMemory<byte> content, bool wide)
    {
        _name = name;
        _content = content;
        _wide = wide;
    }

    private static ReadOnlySpan<byte> Magic => [0x7F, (byte)'E', (byte)'L', (byte)'F'];

    private static ReadOnlySpan<byte> NoteOwner => "Xen\0"u8;

    private static ReadOnlySpan<byte> UnikraftSection => ".uk_"u8;

    private ReadOnlySpan<byte> Bytes => _content.Span;

    private int HeaderSize => _wide ? 64 : 52;

    private ulong EntryPoint => Address(24);

    internal static KernelImage? Find(string name, ReadOnlyMemory<byte> content, ICollection<string> reasons)
    {
        if (Open(name, content) is not { } elf)
        {
            reasons.Add("PVH and Linux ELF (no ELF file for x86)");
            return null;
        }

        if (elf.ReadProgramHeaders(out ProgramHeader[] headers) is { } problem)
        {
            reasons.Add($"PVH and Linux ELF ({problem})");
            return null;
        }

        if (elf.FindPvhEntry(headers) is { } entry)
        {
            return elf.Create(BootProtocol.Pvh, entry, headers);
        }

        reasons.Add("PVH (no ELF note of Xen with type 18)");
        if (elf._wide && (Array.Exists(headers, static header => header.IsLoaded && header.Virtual != header.Physical) || elf.HasUnikraftSection()))
        {
            return elf.Create(BootProtocol.Linux64, ToPhysical(headers, elf.EntryPoint), headers);
        }

        reasons.Add("Linux ELF (neither linked to other addresses than it is loaded to, nor a section .uk_*)");
        return null;
    }

    /// <summary>Parses the ELF file around a multiboot header.</summary>
    internal static KernelImage ParseMultiboot(string name, ReadOnlyMemory<byte> content)
    {
        if (Open(name, content) is not { } elf)
        {
            throw Damaged(name, "no load addresses in its multiboot header, and no ELF file for x86 around it");
        }

        return elf.ReadProgramHeaders(out ProgramHeader[] headers) is { } problem
            ? throw Damaged(name, problem)
            : elf.Create(BootProtocol.Multiboot, ToPhysical(headers, elf.EntryPoint), headers);
    }

    /// <summary>Reads the ELF header; null when this is no ELF file of an executable for x86.</summary>
    private static ElfKernel? Open(string name, ReadOnlyMemory<byte> content)
    {
        ReadOnlySpan<byte> bytes = content.Span;
        if (!bytes.StartsWith(Magic) || bytes.Length < LeastHeaderSize)
        {
            return null;
        }

        bool wide = bytes[4] == Class64;
        ushort type = BinaryPrimitives.ReadUInt16LittleEndian(bytes[16..]);
        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(bytes[18..]);
        if ((!wide && bytes[4] != Class32)
            || bytes[5] != LittleEndian
            || machine != (wide ? MachineX8664 : Machine386)
            || type is not (TypeExecutable or TypeShared))
        {
            return null;
        }

        ElfKernel elf = new(name, content, wide);
        return bytes.Length >= elf.HeaderSize ? elf : null;
    }

    private static ulong ToPhysical(ProgramHeader[] headers, ulong entry)
    {
        // Linux gives a physical entry point, others a virtual one. One that is both is the same.
        bool isPhysical = Array.Exists(headers, header => header.IsLoaded && entry - header.Physical < header.MemorySize);
        int index = isPhysical ? -1 : Array.FindIndex(headers, header => header.IsLoaded && entry - header.Virtual < header.MemorySize);
        return index < 0 ? entry : unchecked(entry - headers[index].Virtual + headers[index].Physical);
    }

    private KernelImage Create(BootProtocol protocol, ulong entryPoint, ProgramHeader[] headers) => KernelImage.Create(
        _name,
        protocol,
        entryPoint,
        headers
            .Where(static header => header.IsLoaded && header.MemorySize > 0)
            .Select(header => KernelImage.Segment(_name, header.Physical, header.MemorySize, _content, header.Offset, header.FileSize))) with
    {
        IsUnikraft = _wide && HasUnikraftSection(),
    };

    /// <summary>Reads the program headers.</summary>
    /// <returns>Why they cannot be read; null when they can.</returns>
    private string? ReadProgramHeaders(out ProgramHeader[] headers)
    {
        headers = [];
        ulong offset = Address(_wide ? 32 : 28);
        int size = Half(_wide ? 54 : 42);
        int count = Half(_wide ? 56 : 44);
        if (size < (_wide ? 56 : 32) || count > MaxHeaders)
        {
            return string.Create(CultureInfo.InvariantCulture, $"{count} program headers of {size} bytes; there may be {MaxHeaders}");
        }

        if (!Contains(offset, (ulong)(size * count)))
        {
            return "the file ends before its program headers";
        }

        headers = new ProgramHeader[count];
        for (int i = 0; i < count; i++)
        {
            int at = (int)offset + i * size;
            headers[i] = _wide
                ? new ProgramHeader(Word(at), Long(at + 8), Long(at + 16), Long(at + 24), Long(at + 32), Long(at + 40), Long(at + 48))
                : new ProgramHeader(Word(at), Word(at + 4), Word(at + 8), Word(at + 12), Word(at + 16), Word(at + 20), Word(at + 28));
        }

        return null;
    }

    private ulong? FindPvhEntry(ProgramHeader[] headers)
    {
        foreach (ProgramHeader header in headers)
        {
            if (header.Type == SegmentNote
                && Contains(header.Offset, header.FileSize)
                && FindPvhEntry(Bytes.Slice((int)header.Offset, (int)header.FileSize), header.Alignment == 8 ? 8 : 4) is { } entry)
            {
                return entry;
            }
        }

        return null;
    }

    private ulong? FindPvhEntry(ReadOnlySpan<byte> notes, long alignment)
    {
        long position = 0;
        while (position + NoteHeaderSize <= notes.Length)
        {
            ReadOnlySpan<byte> header = notes[(int)position..];
            uint nameSize = BinaryPrimitives.ReadUInt32LittleEndian(header);
            uint descriptorSize = BinaryPrimitives.ReadUInt32LittleEndian(header[4..]);
            long descriptor = Align(position + NoteHeaderSize + nameSize, alignment);
            if (descriptor + descriptorSize > notes.Length)
            {
                return null;
            }

            if (BinaryPrimitives.ReadUInt32LittleEndian(header[8..]) == NotePhysicalEntry
                && nameSize == NoteOwner.Length
                && header[NoteHeaderSize..].StartsWith(NoteOwner))
            {
                ReadOnlySpan<byte> value = notes.Slice((int)descriptor, (int)descriptorSize);
                return descriptorSize switch
                {
                    sizeof(uint) => BinaryPrimitives.ReadUInt32LittleEndian(value),
                    sizeof(ulong) => BinaryPrimitives.ReadUInt64LittleEndian(value),
                    _ => throw new ImageException(
                        ImageError.Malformed,
                        _name,
                        string.Create(CultureInfo.InvariantCulture, $"The PVH note of the kernel '{_name}' has {descriptorSize} bytes; 4 or 8 make an address.")),
                };
            }

            position = Align(descriptor + descriptorSize, alignment);
        }

        return null;
    }

    /// <summary>Whether a section is Unikraft's. Sections are not needed to boot, so damaged ones are as good as none.</summary>
    private bool HasUnikraftSection()
    {
        const int SectionSize = 64;
        ulong offset = Long(40);
        int count = Half(60);
        int names = Half(62);
        if (Half(58) != SectionSize || count > MaxSections || names >= count || !Contains(offset, (ulong)(count * SectionSize)))
        {
            return false;
        }

        int table = (int)offset + names * SectionSize;
        ulong start = Long(table + 24);
        ulong size = Long(table + 32);
        if (!Contains(start, size))
        {
            return false;
        }

        ReadOnlySpan<byte> texts = Bytes.Slice((int)start, (int)size);
        for (int i = 0; i < count; i++)
        {
            uint text = Word((int)offset + i * SectionSize);
            if (text < (uint)texts.Length && texts[(int)text..].StartsWith(UnikraftSection))
            {
                return true;
            }
        }

        return false;
    }

    private static ImageException Damaged(string name, string what) =>
        new(ImageError.Malformed, name, $"The multiboot kernel '{name}' cannot be loaded: {what}. Build it again.");

    private static long Align(long value, long alignment) => (value + alignment - 1) & -alignment;

    private bool Contains(ulong offset, ulong size) => offset <= (ulong)Bytes.Length && size <= (ulong)Bytes.Length - offset;

    private int Half(int offset) => BinaryPrimitives.ReadUInt16LittleEndian(Bytes[offset..]);

    private uint Word(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(Bytes[offset..]);

    private ulong Long(int offset) => BinaryPrimitives.ReadUInt64LittleEndian(Bytes[offset..]);

    private ulong Address(int offset) => _wide ? Long(offset) : Word(offset);

    private sealed record ProgramHeader(uint Type, ulong Offset, ulong Virtual, ulong Physical, ulong FileSize, ulong MemorySize, ulong Alignment)
    {
        internal bool IsLoaded => Type == SegmentLoad;
    }
}

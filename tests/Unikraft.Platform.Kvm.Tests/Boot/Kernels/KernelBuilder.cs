using System.Buffers.Binary;

namespace Unikraft.Platform.Kvm.Tests.Boot.Kernels;

/// <summary>Puts the smallest kernels of every protocol together.</summary>
internal static class KernelBuilder
{
    internal const uint LoadAddress = 0x100_0000;
    internal const uint InitSize = 0x80_0000;
    internal const int CodeSize = 0x1000;
    internal const uint Note = 4;

    /// <summary>A bzImage of protocol 2.15 with four setup sectors.</summary>
    internal static byte[] BzImage(Action<byte[]>? spoil = null)
    {
        byte[] file = new byte[5 * 512 + CodeSize];
        Span<byte> bytes = file;
        bytes[0x1F1] = 4;
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[0x1FE..], 0xAA55);
        bytes[0x201] = 0x6A;
        "HdrS"u8.CopyTo(bytes[0x202..]);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[0x206..], 0x020F);
        bytes[0x211] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[0x22C..], 0x7FFF_FFFF);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[0x236..], 1);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[0x238..], 2047);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes[0x258..], LoadAddress);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[0x260..], InitSize);
        bytes[(5 * 512)..].Fill(0xCC);
        spoil?.Invoke(file);
        return file;
    }

    /// <summary>An ELF file like vmlinux: linked to the top of the address space, loaded at 16 MiB.</summary>
    internal static ElfBuilder Vmlinux()
    {
        ElfBuilder elf = ElfBuilder.Program();
        elf.Segments[0].Address = 0xFFFF_FFFF_8100_0000;
        elf.Segments[0].Physical = LoadAddress;
        elf.Entry = LoadAddress;
        return elf;
    }

    /// <summary>An ELF file with notes: first one of somebody else, then the PVH note.</summary>
    internal static ElfBuilder Pvh(ulong entry, int descriptorSize = 4, uint type = 18, string owner = "Xen")
    {
        byte[] descriptor = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(descriptor, entry);
        byte[] notes = [.. NoteOf("GNU", 3, new byte[20]), .. NoteOf(owner, type, descriptor[..descriptorSize])];
        ElfBuilder elf = ElfBuilder.Program();
        elf.Segments.Add(new ElfBuilder.Segment { Type = Note, FileSize = (ulong)notes.Length, MemorySize = (ulong)notes.Length });
        ulong code = (ulong)elf.Content.Length;
        elf.Content = [.. elf.Content, .. notes];
        ulong headers = ElfBuilder.HeaderSize + 2 * ElfBuilder.ProgramHeaderSize;
        elf.Segments[0].Offset = headers;
        elf.Segments[1].Offset = headers + code;
        return elf;
    }

    /// <summary>An ELF file with a PVH note that leads to some code.</summary>
    internal static byte[] PvhWith(byte[] code)
    {
        const ulong Entry = ElfBuilder.Base + 0x800;
        ElfBuilder elf = Pvh(Entry);
        elf.Segments.Add(new ElfBuilder.Segment { Address = Entry, FileSize = (ulong)code.Length, MemorySize = (ulong)code.Length });
        elf.Segments[0].MemorySize = 0x100;
        elf.Segments[0].Offset += ElfBuilder.ProgramHeaderSize;
        elf.Segments[1].Offset += ElfBuilder.ProgramHeaderSize;
        elf.Segments[2].Offset = (ulong)(ElfBuilder.HeaderSize + 3 * ElfBuilder.ProgramHeaderSize + elf.Content.Length);
        elf.Content = [.. elf.Content, .. code];
        return elf.Build();
    }

    /// <summary>An ELF file with section names, the first one of them as given.</summary>
    internal static byte[] WithSection(string name, params byte[] code)
    {
        byte[] file = ElfBuilder.Program(code).Build();
        byte[] names = [0, .. System.Text.Encoding.ASCII.GetBytes(name), 0];
        byte[] sections = new byte[2 * 64];
        BinaryPrimitives.WriteUInt32LittleEndian(sections, 1);
        BinaryPrimitives.WriteUInt64LittleEndian(sections.AsSpan(64 + 24), (ulong)file.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(sections.AsSpan(64 + 32), (ulong)names.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(40), (ulong)(file.Length + names.Length));
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(58), 64);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(60), 2);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(62), 1);
        return [.. file, .. names, .. sections];
    }

    /// <summary>A flat file with a multiboot header that holds its addresses, 16 bytes into the file.</summary>
    internal static byte[] Multiboot(Action<uint[]>? spoil = null, uint flags = 0x1_0003)
    {
        const int Offset = 16;
        uint[] words = [0x1BAD_B002, flags, 0, LoadAddress + Offset, LoadAddress, LoadAddress + 0x400, LoadAddress + 0x2000, LoadAddress + 0x40];
        spoil?.Invoke(words);
        words[2] = unchecked(0u - words[0] - words[1]);
        byte[] file = new byte[0x800];
        for (int i = 0; i < words.Length; i++)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(Offset + i * 4), words[i]);
        }

        return file;
    }

    /// <summary>A 32-bit ELF file with a multiboot header that leaves the addresses to ELF.</summary>
    internal static byte[] MultibootElf32(uint virtualAddress = LoadAddress)
    {
        const int Headers = 52 + 32;
        byte[] file = new byte[Headers + 0x40];
        Span<byte> bytes = file;
        "\u007fELF"u8.CopyTo(bytes);
        bytes[4] = 1;
        bytes[5] = 1;
        bytes[6] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[16..], 2);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[18..], 3);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[24..], virtualAddress + 0x20);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[28..], 52);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[42..], 32);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[44..], 1);
        uint[] header = [1, Headers, virtualAddress, LoadAddress, 0x40, 0x1000, 5, 0x1000];
        for (int i = 0; i < header.Length; i++)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(bytes[(52 + i * 4)..], header[i]);
        }

        uint[] multiboot = [0x1BAD_B002, 3, unchecked(0u - 0x1BAD_B002 - 3)];
        for (int i = 0; i < multiboot.Length; i++)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(bytes[(Headers + i * 4)..], multiboot[i]);
        }

        return file;
    }

    private static byte[] NoteOf(string owner, uint type, byte[] descriptor)
    {
        byte[] note = new byte[12 + 4 + (descriptor.Length + 3 & ~3)];
        BinaryPrimitives.WriteInt32LittleEndian(note, owner.Length + 1);
        BinaryPrimitives.WriteInt32LittleEndian(note.AsSpan(4), descriptor.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(note.AsSpan(8), type);
        System.Text.Encoding.ASCII.GetBytes(owner, note.AsSpan(12));
        descriptor.CopyTo(note, 16);
        return note;
    }
}

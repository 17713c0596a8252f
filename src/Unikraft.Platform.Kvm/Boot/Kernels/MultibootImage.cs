using System.Buffers.Binary;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>A kernel with a multiboot header.</summary>
/// <remarks>Offsets and meanings: Multiboot Specification 0.6.96, "OS image format".</remarks>
internal static class MultibootImage
{
    private const uint HeaderMagic = 0x1BAD_B002;
    private const int SearchedBytes = 8192;
    private const int ShortHeaderSize = 12;
    private const int AddressHeaderSize = 32;

    // Modules are on pages and the memory map is always there.
    private const uint PageAlignment = 1 << 0;
    private const uint MemoryInformation = 1 << 1;
    private const uint Requirements = 0xFFFF;
    private const uint AddressesValid = 1 << 16;

    internal static KernelImage? Find(string name, ReadOnlyMemory<byte> content, ICollection<string> reasons)
    {
        ReadOnlySpan<byte> bytes = content.Span;
        int searched = Math.Min(bytes.Length, SearchedBytes);
        for (int offset = 0; offset + ShortHeaderSize <= searched; offset += sizeof(uint))
        {
            uint flags = Word(bytes, offset + 4);
            if (Word(bytes, offset) == HeaderMagic && unchecked(HeaderMagic + flags + Word(bytes, offset + 8)) == 0)
            {
                return Parse(name, content, offset, flags);
            }
        }

        reasons.Add("multiboot (no header in the first 8 KiB)");
        return null;
    }

    private static KernelImage Parse(string name, ReadOnlyMemory<byte> content, int offset, uint flags)
    {
        uint unknown = flags & Requirements & ~(PageAlignment | MemoryInformation);
        if (unknown != 0)
        {
            throw new ImageException(
                ImageError.Unsupported,
                name,
                $"The multiboot kernel '{name}' requires features 0x{unknown:x} of its loader, for example a video mode. Build it without them.");
        }

        if ((flags & AddressesValid) == 0)
        {
            return ElfKernel.ParseMultiboot(name, content);
        }

        ReadOnlySpan<byte> bytes = content.Span;
        if (bytes.Length - offset < AddressHeaderSize)
        {
            throw KernelImage.Truncated(name, "the end of its multiboot header", bytes.Length);
        }

        uint header = Word(bytes, offset + 12);
        uint load = Word(bytes, offset + 16);
        uint loadEnd = Word(bytes, offset + 20);
        uint bssEnd = Word(bytes, offset + 24);
        uint entry = Word(bytes, offset + 28);
        if (load > header || header - load > offset)
        {
            throw Malformed(name, $"is loaded at 0x{load:x} with its header at 0x{header:x}, but the header is at 0x{offset:x} of the file");
        }

        uint start = (uint)offset - (header - load);
        if (loadEnd != 0 && loadEnd < load)
        {
            throw Malformed(name, $"is loaded from 0x{load:x} to 0x{loadEnd:x}");
        }

        uint size = loadEnd == 0 ? (uint)bytes.Length - start : loadEnd - load;
        if (bssEnd != 0 && bssEnd < (ulong)load + size)
        {
            throw Malformed(name, $"ends at 0x{bssEnd:x}, before what is loaded of it");
        }

        ulong memorySize = bssEnd == 0 ? size : bssEnd - load;
        return KernelImage.Create(name, BootProtocol.Multiboot, entry, [KernelImage.Segment(name, load, memorySize, content, start, size)]);
    }

    private static uint Word(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[offset..]);

    private static ImageException Malformed(string name, string what) =>
        new(ImageError.Malformed, name, $"The multiboot kernel '{name}' {what}. Build it again.");
}

using System.Buffers.Binary;
using System.Globalization;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>A compressed Linux kernel that brings its own decompressor.</summary>
/// <remarks>Offsets and meanings: The Linux/x86 Boot Protocol, "The Real-Mode Kernel Header" and "64-bit Boot Protocol".</remarks>
internal static class LinuxBzImage
{
    internal const int HeaderOffset = 0x1F1;

    private const int BootFlagOffset = 0x1FE;
    private const int JumpOffset = 0x201;
    private const int SignatureOffset = 0x202;
    private const int VersionOffset = 0x206;
    private const int LoadFlagsOffset = 0x211;
    private const int InitrdMaxOffset = 0x22C;
    private const int ExtendedLoadFlagsOffset = 0x236;
    private const int CommandLineSizeOffset = 0x238;
    private const int PreferredAddressOffset = 0x258;
    private const int InitSizeOffset = 0x260;
    private const int LeastHeaderEnd = 0x264;

    private const ushort BootFlag = 0xAA55;
    private const int SectorSize = 512;
    private const int DefaultSetupSectors = 4;

    // xloadflags came with 2.12, Linux 3.8.
    private const ushort LeastVersion = 0x020C;
    private const byte LoadedHigh = 1 << 0;
    private const ushort Kernel64 = 1 << 0;
    private const int Entry64 = 0x200;

    private static ReadOnlySpan<byte> Signature => "HdrS"u8;

    internal static KernelImage? Find(string name, ReadOnlyMemory<byte> content, ICollection<string> reasons)
    {
        ReadOnlySpan<byte> bytes = content.Span;
        if (bytes.Length < SignatureOffset + Signature.Length || !bytes[SignatureOffset..].StartsWith(Signature))
        {
            reasons.Add("Linux bzImage (no signature HdrS at 0x202)");
            return null;
        }

        if (bytes.Length < LeastHeaderEnd)
        {
            throw KernelImage.Truncated(name, "the end of its setup header", bytes.Length);
        }

        if (BinaryPrimitives.ReadUInt16LittleEndian(bytes[BootFlagOffset..]) != BootFlag)
        {
            throw Malformed(name, "has no boot flag (0xaa55) before its signature");
        }

        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(bytes[VersionOffset..]);
        if (version < LeastVersion)
        {
            throw Unsupported(name, string.Create(CultureInfo.InvariantCulture, $"is of boot protocol {version >> 8}.{version & 0xFF}"));
        }

        int headerEnd = SignatureOffset + bytes[JumpOffset];
        if (headerEnd < LeastHeaderEnd || headerEnd > bytes.Length)
        {
            throw Malformed(name, $"says that its setup header ends at 0x{headerEnd:x}");
        }

        if ((bytes[LoadFlagsOffset] & LoadedHigh) == 0
            || (BinaryPrimitives.ReadUInt16LittleEndian(bytes[ExtendedLoadFlagsOffset..]) & Kernel64) == 0)
        {
            throw Unsupported(name, "has no 64-bit entry");
        }

        int sectors = bytes[HeaderOffset] == 0 ? DefaultSetupSectors : bytes[HeaderOffset];
        int start = (sectors + 1) * SectorSize;
        if (bytes.Length - start <= Entry64)
        {
            throw KernelImage.Truncated(name, "its protected-mode code", bytes.Length);
        }

        ulong address = BinaryPrimitives.ReadUInt64LittleEndian(bytes[PreferredAddressOffset..]);
        int size = bytes.Length - start;
        ulong memorySize = Math.Max(BinaryPrimitives.ReadUInt32LittleEndian(bytes[InitSizeOffset..]), (uint)size);
        KernelSegment segment = KernelImage.Segment(name, address, memorySize, content, (ulong)start, (ulong)size);
        return KernelImage.Create(name, BootProtocol.Linux64, address + Entry64, [segment]) with
        {
            SetupHeader = content[HeaderOffset..headerEnd],
            MaxCommandLine = (int)Math.Min(BinaryPrimitives.ReadUInt32LittleEndian(bytes[CommandLineSizeOffset..]), KernelLayout.CommandLineSize - 1),
            MaxInitrdAddress = Math.Min(BinaryPrimitives.ReadUInt32LittleEndian(bytes[InitrdMaxOffset..]), KernelMemoryMap.GapStart - 1),
        };
    }

    private static ImageException Malformed(string name, string what) =>
        new(ImageError.Malformed, name, $"The Linux kernel '{name}' {what}. Build it again.");

    private static ImageException Unsupported(string name, string what) =>
        new(ImageError.Unsupported, name, $"The Linux kernel '{name}' {what}. Use a 64-bit kernel of version 3.8 or newer.");
}

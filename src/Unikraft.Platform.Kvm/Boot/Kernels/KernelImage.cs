using System.Globalization;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>A kernel, recognised by its content, parsed and validated. The bytes come from outside and are not trusted.</summary>
/// <param name="Name">The name of the image.</param>
/// <param name="Protocol">How it is booted.</param>
/// <param name="EntryPoint">The guest physical address of its first instruction.</param>
/// <param name="Segments">What is loaded, by ascending address; at least one segment.</param>
internal sealed record KernelImage(string Name, BootProtocol Protocol, long EntryPoint, IReadOnlyList<KernelSegment> Segments)
{
    /// <summary>The lowest address that a segment may have: below lies what the platform tells the kernel.</summary>
    internal const long LowestAddress = 0x10_0000;

    /// <summary>The setup header of a bzImage, which goes into the zero page; empty for every other image.</summary>
    internal ReadOnlyMemory<byte> SetupHeader { get; init; }

    /// <summary>The longest command line in bytes, without its NUL.</summary>
    internal int MaxCommandLine { get; init; } = KernelLayout.CommandLineSize - 1;

    /// <summary>The highest address that a byte of the initrd may have.</summary>
    internal long MaxInitrdAddress { get; init; } = KernelMemoryMap.GapStart - 1;

    /// <summary>Whether it is Unikraft, which has a form of command line of its own.</summary>
    internal bool IsUnikraft { get; init; }

    /// <summary>When its guest counts as running.</summary>
    internal RunningRule RunningRule => SetupHeader.IsEmpty ? RunningRule.FirstOutput : RunningRule.ListensToConsole;

    /// <summary>The first byte behind the kernel.</summary>
    internal long End => Segments[^1].End;

    /// <summary>Recognises and parses a kernel.</summary>
    /// <exception cref="ImageException">The bytes are no kernel of a known protocol, or one that is damaged.</exception>
    internal static KernelImage Parse(string name, ReadOnlyMemory<byte> content)
    {
        List<string> reasons = [];
        return Find(name, content, reasons) ?? throw new ImageException(
            ImageError.UnknownFormat,
            name,
            $"The image '{name}' is no kernel that can be booted. Tried were {string.Join(", ", reasons)}.");
    }

    /// <summary>Recognises and parses a kernel; null when the bytes are none, but perhaps a flat guest.</summary>
    /// <param name="name">The name of the image.</param>
    /// <param name="content">The image.</param>
    /// <param name="reasons">Takes the protocols that were tried, each with the reason why it is not that one.</param>
    /// <exception cref="ImageException">It is a kernel, but a damaged one.</exception>
    internal static KernelImage? Find(string name, ReadOnlyMemory<byte> content, ICollection<string> reasons) =>
        LinuxBzImage.Find(name, content, reasons) ?? MultibootImage.Find(name, content, reasons) ?? ElfKernel.Find(name, content, reasons);

    /// <summary>Puts the parts of a kernel in order and checks that they lie where they may.</summary>
    /// <exception cref="ImageException">They do not.</exception>
    internal static KernelImage Create(string name, BootProtocol protocol, ulong entryPoint, IEnumerable<KernelSegment> parts)
    {
        KernelSegment[] segments = [.. parts.OrderBy(static segment => segment.Address)];
        if (segments.Length == 0)
        {
            throw new ImageException(ImageError.Malformed, name, $"The kernel '{name}' has no segment to load. Build it again.");
        }

        for (int i = 1; i < segments.Length; i++)
        {
            if (segments[i - 1].End > segments[i].Address)
            {
                throw new ImageException(
                    ImageError.SegmentOverlap,
                    name,
                    $"Segments of the kernel '{name}' overlap: one ends at 0x{segments[i - 1].End:x}, one begins at 0x{segments[i].Address:x}.");
            }
        }

        if (!Array.Exists(segments, segment => entryPoint >= (ulong)segment.Address && entryPoint < (ulong)segment.End))
        {
            throw new ImageException(
                ImageError.Malformed,
                name,
                $"The kernel '{name}' enters at 0x{entryPoint:x}, which is in no segment of it. Build it again.");
        }

        return new KernelImage(name, protocol, (long)entryPoint, segments);
    }

    /// <summary>Makes a segment of untrusted numbers.</summary>
    /// <exception cref="ImageException">It lies where no kernel may lie, or its bytes are not in the file.</exception>
    internal static KernelSegment Segment(string name, ulong address, ulong memorySize, ReadOnlyMemory<byte> file, ulong offset, ulong size)
    {
        // Bounded one by one, so that no sum can overflow.
        if (address < LowestAddress || address >= KernelMemoryMap.GapStart || memorySize > KernelMemoryMap.GapStart - address)
        {
            throw new ImageException(
                ImageError.SegmentOutOfRange,
                name,
                $"The kernel '{name}' has a segment at 0x{address:x} of 0x{memorySize:x} bytes; a kernel may use 0x{LowestAddress:x} to 0x{KernelMemoryMap.GapStart:x}.");
        }

        if (size > memorySize)
        {
            throw new ImageException(
                ImageError.Malformed,
                name,
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"The kernel '{name}' has a segment at 0x{address:x} with more bytes in the file ({size}) than in memory ({memorySize}). Build it again."));
        }

        if (size == 0)
        {
            return new KernelSegment((long)address, (long)memorySize, ReadOnlyMemory<byte>.Empty);
        }

        return offset <= (ulong)file.Length && size <= (ulong)file.Length - offset
            ? new KernelSegment((long)address, (long)memorySize, file.Slice((int)offset, (int)size))
            : throw Truncated(name, $"its segment at 0x{address:x}", file.Length);
    }

    internal static ImageException Truncated(string name, string what, int length) => new(
        ImageError.Truncated,
        name,
        string.Create(CultureInfo.InvariantCulture, $"The kernel '{name}' ends before {what}: it has {length} bytes. Copy it again."));
}

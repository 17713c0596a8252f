using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Boot;

public sealed class ElfImageTests
{
    private const ulong Base = ElfBuilder.Base;

    public static TheoryData<string> Guests => [.. GuestImages.Names];

    /// <summary>Everything that can be wrong with the headers, one at a time.</summary>
    public static TheoryData<string, ImageError> Mistakes
    {
        get
        {
            TheoryData<string, ImageError> data = [];
            foreach ((string name, (_, ImageError error)) in Mutations)
            {
                data.Add(name, error);
            }

            return data;
        }
    }

    private static Dictionary<string, (Action<ElfBuilder> Spoil, ImageError Error)> Mutations => new(StringComparer.Ordinal)
    {
        ["32-bit"] = (elf => elf.Class = 1, ImageError.WrongMachine),
        ["class 0"] = (elf => elf.Class = 0, ImageError.WrongMachine),
        ["big-endian"] = (elf => elf.Endianness = 2, ImageError.WrongMachine),
        ["arm64"] = (elf => elf.Machine = 183, ImageError.WrongMachine),
        ["i386"] = (elf => elf.Machine = 3, ImageError.WrongMachine),
        ["ident version"] = (elf => elf.IdentVersion = 2, ImageError.Malformed),
        ["version"] = (elf => elf.Version = 0, ImageError.Malformed),
        ["ET_DYN"] = (elf => elf.Type = 3, ImageError.Unsupported),
        ["ET_REL"] = (elf => elf.Type = 1, ImageError.Unsupported),
        ["ET_CORE"] = (elf => elf.Type = 4, ImageError.Unsupported),
        ["ET_NONE"] = (elf => elf.Type = 0, ImageError.Unsupported),
        ["dynamic"] = (elf => elf.Segments.Add(new() { Type = ElfBuilder.Dynamic }), ImageError.Unsupported),
        ["interpreter"] = (elf => elf.Segments.Add(new() { Type = ElfBuilder.Interpreter }), ImageError.Unsupported),
        ["header size"] = (elf => elf.HeaderSizeField = 63, ImageError.Malformed),
        ["program header size 0"] = (elf => elf.ProgramHeaderSizeField = 0, ImageError.Malformed),
        ["program header size 32"] = (elf => elf.ProgramHeaderSizeField = 32, ImageError.Malformed),
        ["no program header"] = (elf => elf.Count = 0, ImageError.Malformed),
        ["no loadable segment"] = (elf => elf.Segments[0].Type = 4, ImageError.Malformed),
        ["only an empty segment"] = (elf => (elf.Segments[0].FileSize, elf.Segments[0].MemorySize) = (0, 0), ImageError.Malformed),
        ["65 program headers"] = (elf => elf.Count = 65, ImageError.Malformed),
        ["65,535 program headers"] = (elf => elf.Count = ushort.MaxValue, ImageError.Malformed),
        ["more headers than bytes"] = (elf => elf.Count = 3, ImageError.Truncated),
        ["headers behind the end"] = (elf => elf.ProgramHeaderOffset = 1 << 20, ImageError.Truncated),
        ["headers at 2^64-1"] = (elf => elf.ProgramHeaderOffset = ulong.MaxValue, ImageError.Truncated),
        ["headers at 2^63"] = (elf => elf.ProgramHeaderOffset = 1UL << 63, ImageError.Truncated),
        ["filesz above memsz"] = (elf => elf.Segments[0].MemorySize = 1, ImageError.Malformed),
        ["filesz without memsz"] = (elf => Add(elf, Base + 0x1000, 0, fileSize: 1), ImageError.Malformed),
        ["offset behind the end"] = (elf => elf.Segments[0].Offset = 1 << 20, ImageError.Truncated),
        ["offset overflows"] = (elf => elf.Segments[0].Offset = ulong.MaxValue, ImageError.Truncated),
        ["offset and size overflow"] = (elf => elf.Segments[0].Offset = ulong.MaxValue - 1, ImageError.Truncated),
        ["filesz behind the end"] = (elf => elf.Segments[0].FileSize = 0x1000, ImageError.Truncated),
        ["at 0"] = (elf => Add(elf, 0, 0x1000), ImageError.SegmentOutOfRange),
        ["below the first allowed address"] = (elf => Add(elf, Base - 1, 1), ImageError.SegmentOutOfRange),
        ["reaching into the image area from below"] = (elf => Add(elf, Base - 0x1000, 0x2000), ImageError.SegmentOutOfRange),
        ["at the end of the heap window"] = (elf => Add(elf, FlatGuestLayout.HeapWindowEnd, 1), ImageError.SegmentOutOfRange),
        ["across the end of the heap window"] = (elf => Add(elf, FlatGuestLayout.HeapWindowEnd - 0x1000, 0x1001), ImageError.SegmentOutOfRange),
        ["at a negative address"] = (elf => Add(elf, 1UL << 63, 1), ImageError.SegmentOutOfRange),
        ["at the last byte"] = (elf => Add(elf, ulong.MaxValue, 1), ImageError.SegmentOutOfRange),
        ["wrapping around"] = (elf => Add(elf, Base + 0x1000, ulong.MaxValue), ImageError.SegmentOutOfRange),
        ["wrapping around to zero"] = (elf => Add(elf, ulong.MaxValue - 0xFFF, 0x1000), ImageError.SegmentOutOfRange),
        ["twice the same"] = (elf => Add(elf, Base, 0x1000), ImageError.SegmentOverlap),
        ["overlapping"] = (elf => Add(elf, Base + 0x800, 0x1000), ImageError.SegmentOverlap),
        ["one inside the other"] = (elf => (elf.Segments[0].MemorySize, _) = (0x4000, Add(elf, Base + 0x1000, 0x1000)), ImageError.SegmentOverlap),
        ["sharing a page"] = (elf => (elf.Segments[0].MemorySize, _) = (0x800, Add(elf, Base + 0x800, 0x800)), ImageError.SegmentOverlap),
        ["entry before the image"] = (elf => elf.Entry = Base - 1, ImageError.Malformed),
        ["entry behind the image"] = (elf => elf.Entry = Base + 0x1000, ImageError.Malformed),
        ["entry 0"] = (elf => elf.Entry = 0, ImageError.Malformed),
        ["entry 2^64-1"] = (elf => elf.Entry = ulong.MaxValue, ImageError.Malformed),
        ["entry in data"] = (elf => elf.Segments[0].Flags = ElfBuilder.Read | ElfBuilder.Write, ImageError.Malformed),
        ["entry in a second segment, of data"] = (elf => (elf.Entry, _) = (Base + 0x1000, Add(elf, Base + 0x1000, 0x1000)), ImageError.Malformed),
    };

    [Theory]
    [MemberData(nameof(Mistakes))]
    public void A_wrong_header_is_a_typed_error(string mistake, ImageError expected)
    {
        ElfBuilder builder = ElfBuilder.Program();
        Mutations[mistake].Spoil(builder);

        ImageException error = Assert.Throws<ImageException>(() => ElfImage.Parse("wrong.elf", builder.Build()));

        Assert.Equal(expected, error.Error);
        Assert.Equal("wrong.elf", error.Image);
        Assert.Contains("wrong.elf", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_good_image_is_parsed()
    {
        ElfImage image = ElfImage.Parse("good.elf", ElfBuilder.Program(1, 2, 3).Build());

        ElfSegment segment = Assert.Single(image.Segments);
        Assert.Equal(Base, image.EntryPoint);
        Assert.Equal((long)Base, segment.Address);
        Assert.Equal(0x1000, segment.MemorySize);
        Assert.Equal([1, 2, 3], segment.Content.ToArray());
        Assert.True(segment.IsExecutable);
        Assert.False(segment.IsWritable);
        Assert.Equal((long)Base + 0x1000, image.End);
    }

    [Fact]
    public void Segments_may_come_in_any_order_and_next_to_each_other()
    {
        ElfBuilder builder = ElfBuilder.Program();
        Add(builder, Base + 0x5000, 0x10);
        Add(builder, Base + 0x1000, 0x1000);
        builder.Segments.Add(new() { Type = 0x6474E551, Flags = ElfBuilder.Read });

        ElfImage image = ElfImage.Parse("good.elf", builder.Build());

        Assert.Equal([(long)Base, (long)Base + 0x1000, (long)Base + 0x5000], image.Segments.Select(segment => segment.Address));
        Assert.Equal((long)Base + 0x6000, image.End);
    }

    [Fact]
    public void A_segment_of_zeroes_may_point_anywhere_in_its_file()
    {
        ElfBuilder builder = ElfBuilder.Program();
        builder.Segments.Add(new()
        {
            Address = Base + 0x1000,
            Offset = ulong.MaxValue,
            MemorySize = 0x2000,
            Flags = ElfBuilder.Read | ElfBuilder.Write,
        });

        ElfSegment zeroes = ElfImage.Parse("bss.elf", builder.Build()).Segments[1];

        Assert.Equal(0, zeroes.Content.Length);
        Assert.Equal(0x2000, zeroes.MemorySize);
    }

    [Fact]
    public void As_many_segments_as_allowed_are_parsed()
    {
        ElfBuilder builder = ElfBuilder.Program();
        for (ulong i = 1; i < 64; i++)
        {
            Add(builder, Base + i * 0x1000, 0x1000);
        }

        Assert.Equal(64, ElfImage.Parse("good.elf", builder.Build()).Segments.Count);
    }

    [Theory]
    [InlineData(new byte[0], ImageError.UnknownFormat)]
    [InlineData(new byte[] { 0x7F }, ImageError.Truncated)]
    [InlineData(new byte[] { 0x7F, 0x45, 0x4C }, ImageError.Truncated)]
    [InlineData(new byte[] { 0x45 }, ImageError.UnknownFormat)]
    [InlineData(new byte[] { 0x7F, 0x45, 0x4C, 0x46 }, ImageError.Truncated)]
    [InlineData(new byte[] { 0x23, 0x21, 0x2F, 0x62, 0x69, 0x6E, 0x2F, 0x73, 0x68 }, ImageError.UnknownFormat)]
    public void What_is_no_elf_is_a_typed_error(byte[] content, ImageError expected) =>
        Assert.Equal(expected, Assert.Throws<ImageException>(() => ElfImage.Parse("text", content)).Error);

    [Theory]
    [MemberData(nameof(Guests))]
    public void A_truncated_guest_is_a_typed_error_at_every_length(string guest)
    {
        byte[] file = GuestImages.Read(guest);
        int needed = BytesNeeded(file);
        Assert.InRange(needed, ElfBuilder.HeaderSize, file.Length);
        for (int length = 0; length < file.Length; length++)
        {
            ReadOnlyMemory<byte> cut = file.AsMemory(0, length);
            if (length >= needed)
            {
                // Only section headers and names are missing, which nobody loads.
                Assert.NotEmpty(ElfImage.Parse(guest, cut).Segments);
                continue;
            }

            ImageError expected = length == 0 ? ImageError.UnknownFormat : ImageError.Truncated;
            ImageError? actual = Record.Exception(() => ElfImage.Parse(guest, cut)) is ImageException error ? error.Error : null;
            Assert.True(actual == expected, $"{guest} cut at {length}: {actual}");
        }
    }

    [Fact]
    public void Mutated_images_give_an_image_or_a_typed_error()
    {
        const int Rounds = 200_000;
        Random random = new(20260101);
        byte[][] originals = [ElfBuilder.Program().Build(), .. GuestImages.Names.Select(GuestImages.Read)];
        ulong[] values =
        [
            0, 1, 2, 3, 0xFFF, 0x1000, 0x7FFF, 0xFFFF, Base - 1, Base, int.MaxValue, uint.MaxValue, long.MaxValue, 1UL << 63, ulong.MaxValue,
            ulong.MaxValue - 0xFFF, FlatGuestLayout.HeapWindowEnd, FlatGuestLayout.HeapWindowEnd - 1,
        ];
        int parsed = 0;
        for (int round = 0; round < Rounds; round++)
        {
            byte[] original = originals[round % originals.Length];
            byte[] image = original[..Math.Min(original.Length, random.Next(8) == 0 ? random.Next(original.Length) : 4096)];
            int headers = Math.Min(image.Length, ElfBuilder.HeaderSize + 6 * ElfBuilder.ProgramHeaderSize);
            for (int changes = random.Next(1, 5); changes > 0 && headers >= 16; changes--)
            {
                // Behind the magic number: without it nothing else is looked at.
                int at = random.Next(4, headers - 8 + 1);
                if (random.Next(2) == 0)
                {
                    image[at] = (byte)random.Next(256);
                }
                else
                {
                    BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(at & ~7), values[random.Next(values.Length)]);
                }
            }

            try
            {
                ElfImage result = ElfImage.Parse("mutated", image);
                parsed++;
                Assert.All(result.Segments, static segment => Assert.InRange(segment.Content.Length, 0, segment.MemorySize));
                _ = new FlatGuestLayout(result, 64 << 20, 1);
            }
            catch (ImageException error)
            {
                Assert.NotEmpty(error.Message);
            }
        }

        Assert.InRange(parsed, 1, Rounds - 1);
    }

    [Fact]
    public void Memory_that_is_too_small_is_refused_to_the_page()
    {
        ElfImage image = ElfImage.Parse("large.elf", ElfBuilder.Program().Build());
        long needed = (long)Base + 0x1000 + 2 * (FlatGuestLayout.StackSize + 0x1000) + 0x1000 + 0x1000;

        Assert.Equal(needed, new FlatGuestLayout(image, needed, 2).MemorySize);
        ImageException error = Assert.Throws<ImageException>(() => new FlatGuestLayout(image, needed - 0x1000, 2));

        Assert.Equal(ImageError.MemoryTooSmall, error.Error);
        Assert.Equal("The image 'large.elf' needs at least 2 MiB of memory, but the instance has 1.", error.Message);
    }

    private static bool Add(ElfBuilder builder, ulong address, ulong size, ulong fileSize = 0)
    {
        builder.Segments.Add(new() { Address = address, MemorySize = size, FileSize = fileSize, Flags = ElfBuilder.Read | ElfBuilder.Write });
        return true;
    }

    /// <summary>Where the last byte that a loader needs lies, found without the parser under test.</summary>
    private static int BytesNeeded(byte[] file)
    {
        int headers = (int)BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(32));
        int count = BinaryPrimitives.ReadUInt16LittleEndian(file.AsSpan(56));
        int needed = headers + count * ElfBuilder.ProgramHeaderSize;
        for (int i = 0; i < count; i++)
        {
            Span<byte> header = file.AsSpan(headers + i * ElfBuilder.ProgramHeaderSize);
            if (BinaryPrimitives.ReadUInt32LittleEndian(header) == ElfBuilder.Load)
            {
                needed = Math.Max(
                    needed,
                    (int)(BinaryPrimitives.ReadUInt64LittleEndian(header[8..]) + BinaryPrimitives.ReadUInt64LittleEndian(header[32..])));
            }
        }

        return needed;
    }
}

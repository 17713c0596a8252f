using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Boot.Kernels;

public sealed class KernelImageTests
{
    private const uint Load = KernelBuilder.LoadAddress;

    public static TheoryData<string> FlatGuests => [.. GuestImages.Names];

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

    /// <summary>Images of every protocol with one thing wrong.</summary>
    private static Dictionary<string, (Func<byte[]> Build, ImageError Error)> Mutations => new(StringComparer.Ordinal)
    {
        ["bzImage: no boot flag"] = (() => KernelBuilder.BzImage(file => file[0x1FE] = 0), ImageError.Malformed),
        ["bzImage: old protocol"] = (() => KernelBuilder.BzImage(file => file[0x206] = 0x0B), ImageError.Unsupported),
        ["bzImage: loaded low"] = (() => KernelBuilder.BzImage(file => file[0x211] = 0), ImageError.Unsupported),
        ["bzImage: 32-bit"] = (() => KernelBuilder.BzImage(file => file[0x236] = 0), ImageError.Unsupported),
        ["bzImage: header ends early"] = (() => KernelBuilder.BzImage(file => file[0x201] = 0x61), ImageError.Malformed),
        ["bzImage: header ends behind the file"] = (() => KernelBuilder.BzImage()[..0x264], ImageError.Malformed),
        ["bzImage: cut in the header"] = (() => KernelBuilder.BzImage()[..0x263], ImageError.Truncated),
        ["bzImage: cut at the signature"] = (() => KernelBuilder.BzImage()[..0x206], ImageError.Truncated),
        ["bzImage: cut in the setup code"] = (() => KernelBuilder.BzImage()[..1024], ImageError.Truncated),
        ["bzImage: cut before the entry"] = (() => KernelBuilder.BzImage()[..(5 * 512 + 0x200)], ImageError.Truncated),
        ["bzImage: more setup sectors than file"] = (() => KernelBuilder.BzImage(file => file[0x1F1] = 255), ImageError.Truncated),
        ["bzImage: preferred address 0"] = (() => KernelBuilder.BzImage(file => Put64(file, 0x258, 0)), ImageError.SegmentOutOfRange),
        ["bzImage: preferred address in the gap"] = (() => KernelBuilder.BzImage(file => Put64(file, 0x258, 0xC000_0000)), ImageError.SegmentOutOfRange),
        ["bzImage: preferred address 2^64-1"] = (() => KernelBuilder.BzImage(file => Put64(file, 0x258, ulong.MaxValue)), ImageError.SegmentOutOfRange),
        ["bzImage: init size reaches the gap"] = (() => KernelBuilder.BzImage(file => Put32(file, 0x260, uint.MaxValue)), ImageError.SegmentOutOfRange),
        ["vmlinux: at 0"] = (() => Spoil(KernelBuilder.Vmlinux(), elf => elf.Segments[0].Physical = 0), ImageError.SegmentOutOfRange),
        ["vmlinux: at 2^64-1"] = (() => Spoil(KernelBuilder.Vmlinux(), elf => elf.Segments[0].Physical = ulong.MaxValue), ImageError.SegmentOutOfRange),
        ["vmlinux: as large as can be"] = (() => Spoil(KernelBuilder.Vmlinux(), elf => elf.Segments[0].MemorySize = ulong.MaxValue), ImageError.SegmentOutOfRange),
        ["vmlinux: more in the file than in memory"] = (() => Spoil(KernelBuilder.Vmlinux(), elf => elf.Segments[0].MemorySize = 1), ImageError.Malformed),
        ["vmlinux: bytes behind the file"] = (() => Spoil(KernelBuilder.Vmlinux(), elf => elf.Segments[0].FileSize = 0x1000), ImageError.Truncated),
        ["vmlinux: offset 2^64-1"] = (() => Spoil(KernelBuilder.Vmlinux(), elf => elf.Segments[0].Offset = ulong.MaxValue), ImageError.Truncated),
        ["vmlinux: entry elsewhere"] = (() => Spoil(KernelBuilder.Vmlinux(), elf => elf.Entry = 0), ImageError.Malformed),
        ["vmlinux: entry 2^64-1"] = (() => Spoil(KernelBuilder.Vmlinux(), elf => elf.Entry = ulong.MaxValue), ImageError.Malformed),
        ["vmlinux: overlapping segments"] = (() => Spoil(KernelBuilder.Vmlinux(), elf => AddSegment(elf, Load + 0xFFF)), ImageError.SegmentOverlap),
        ["PVH: entry elsewhere"] = (() => KernelBuilder.Pvh(0).Build(), ImageError.Malformed),
        ["PVH: entry of 64 bits elsewhere"] = (() => KernelBuilder.Pvh(ulong.MaxValue, descriptorSize: 8).Build(), ImageError.Malformed),
        ["PVH: entry of 2 bytes"] = (() => KernelBuilder.Pvh(ElfBuilder.Base, descriptorSize: 2).Build(), ImageError.Malformed),
        ["PVH: nothing to load"] = (() => Spoil(KernelBuilder.Pvh(ElfBuilder.Base), elf => elf.Segments[0].MemorySize = 0), ImageError.Malformed),
        ["multiboot: video mode wanted"] = (() => KernelBuilder.Multiboot(flags: 0x1_0007), ImageError.Unsupported),
        ["multiboot: unknown requirement"] = (() => KernelBuilder.Multiboot(flags: 0x1_8000), ImageError.Unsupported),
        ["multiboot: no addresses and no ELF"] = (() => KernelBuilder.Multiboot(flags: 3), ImageError.Malformed),
        ["multiboot: header before the image"] = (() => KernelBuilder.Multiboot(words => words[3] = Load - 1), ImageError.Malformed),
        ["multiboot: image begins before the file"] = (() => KernelBuilder.Multiboot(words => words[4] = Load - 4), ImageError.Malformed),
        ["multiboot: ends before it begins"] = (() => KernelBuilder.Multiboot(words => words[5] = Load - 1), ImageError.Malformed),
        ["multiboot: more than the file"] = (() => KernelBuilder.Multiboot(words => (words[5], words[6]) = (Load + 0x1000, 0)), ImageError.Truncated),
        ["multiboot: zeroes end before the bytes"] = (() => KernelBuilder.Multiboot(words => words[6] = Load + 0x3FF), ImageError.Malformed),
        ["multiboot: zeroes reach the gap"] = (() => KernelBuilder.Multiboot(words => words[6] = uint.MaxValue), ImageError.SegmentOutOfRange),
        ["multiboot: at 4 GiB"] = (() => KernelBuilder.Multiboot(words => (words[3], words[4], words[5], words[6]) = (0xFFFF_F010, 0xFFFF_F000, 0, 0)), ImageError.SegmentOutOfRange),
        ["multiboot: low memory"] = (() => KernelBuilder.Multiboot(words => (words[3], words[4], words[5], words[6]) = (0x7010, 0x7000, 0, 0)), ImageError.SegmentOutOfRange),
        ["multiboot: entry elsewhere"] = (() => KernelBuilder.Multiboot(words => words[7] = 0), ImageError.Malformed),
        ["multiboot: cut in the header"] = (() => KernelBuilder.Multiboot()[..(16 + 31)], ImageError.Truncated),
        ["multiboot: ELF cut in the headers"] = (() => CutHeaders(KernelBuilder.MultibootElf32()), ImageError.Malformed),
    };

    [Theory]
    [MemberData(nameof(Mistakes))]
    public void A_damaged_kernel_is_a_typed_error(string mistake, ImageError expected)
    {
        ImageException error = Assert.Throws<ImageException>(() => KernelImage.Parse("damaged", Mutations[mistake].Build()));

        Assert.Equal(expected, error.Error);
        Assert.Equal("damaged", error.Image);
        Assert.Contains("'damaged'", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_bzimage_is_entered_by_the_64_bit_protocol()
    {
        byte[] file = KernelBuilder.BzImage();

        KernelImage kernel = KernelImage.Parse("vmlinuz", file);

        Assert.Equal((BootProtocol.Linux64, Load + 0x200L, Load + (long)KernelBuilder.InitSize), (kernel.Protocol, kernel.EntryPoint, kernel.End));
        KernelSegment segment = Assert.Single(kernel.Segments);
        Assert.Equal((Load, KernelBuilder.CodeSize), (segment.Address, segment.Content.Length));
        Assert.Equal(file[0x1F1..0x26C], kernel.SetupHeader.ToArray());
        Assert.Equal((2047, 0x7FFF_FFFFL), (kernel.MaxCommandLine, kernel.MaxInitrdAddress));
    }

    [Fact]
    public void A_bzimage_without_a_number_of_setup_sectors_has_four() =>
        Assert.Equal(KernelBuilder.CodeSize, KernelImage.Parse("old", KernelBuilder.BzImage(file => file[0x1F1] = 0)).Segments[0].Content.Length);

    [Fact]
    public void An_initrd_may_lie_below_the_gap_only() =>
        Assert.Equal(0xBFFF_FFFFL, KernelImage.Parse("new", KernelBuilder.BzImage(file => Put32(file, 0x22C, uint.MaxValue))).MaxInitrdAddress);

    [Fact]
    public void An_elf_kernel_is_loaded_by_its_physical_addresses()
    {
        KernelImage kernel = KernelImage.Parse("vmlinux", KernelBuilder.Vmlinux().Build());

        Assert.Equal((BootProtocol.Linux64, (long)Load), (kernel.Protocol, kernel.EntryPoint));
        Assert.Equal(Load, Assert.Single(kernel.Segments).Address);
        Assert.Equal(0, kernel.SetupHeader.Length);
    }

    [Fact]
    public void A_virtual_entry_point_is_translated() =>
        Assert.Equal(Load + 0x10, KernelImage.Parse("vmlinux", Spoil(KernelBuilder.Vmlinux(), elf => elf.Entry = elf.Segments[0].Address + 0x10)).EntryPoint);

    [Theory]
    [InlineData(4)]
    [InlineData(8)]
    public void A_pvh_note_is_the_entry_point(int descriptorSize)
    {
        KernelImage kernel = KernelImage.Parse("pvh", KernelBuilder.Pvh(ElfBuilder.Base + 8, descriptorSize).Build());
        Assert.Equal((BootProtocol.Pvh, (long)ElfBuilder.Base + 8), (kernel.Protocol, kernel.EntryPoint));
    }

    [Theory]
    [InlineData(17, "Xen")]
    [InlineData(18, "Xem")]
    [InlineData(18, "Linux")]
    public void A_note_of_another_kind_or_owner_is_none(uint type, string owner) =>
        Assert.Null(KernelImage.Find("flat", KernelBuilder.Pvh(ElfBuilder.Base, 4, type, owner).Build(), []));

    [Fact]
    public void A_note_of_impossible_size_is_none()
    {
        byte[] file = KernelBuilder.Pvh(ElfBuilder.Base).Build();
        int notes = file.Length - (12 + 4 + 20) - (12 + 4 + 4);
        for (int field = 0; field < 2; field++)
        {
            byte[] copy = [.. file];
            Put32(copy, notes + field * 4, uint.MaxValue);
            Assert.Null(KernelImage.Find("flat", copy, []));
        }
    }

    [Fact]
    public void Unikraft_is_known_by_its_sections()
    {
        KernelImage kernel = KernelImage.Parse("unikraft", KernelBuilder.WithSection(".uk_bootinfo"));
        Assert.Equal((BootProtocol.Linux64, (long)ElfBuilder.Base), (kernel.Protocol, kernel.EntryPoint));
        Assert.Null(KernelImage.Find("flat", KernelBuilder.WithSection(".text"), []));
    }

    [Fact]
    public void Damaged_sections_are_no_sections()
    {
        byte[] good = KernelBuilder.WithSection(".uk_bootinfo");
        (int Offset, int Size)[] fields = [(40, 8), (58, 2), (60, 2), (62, 2), (good.Length - 128, 4), (good.Length - 64 + 24, 8), (good.Length - 64 + 32, 8)];
        foreach ((int offset, int size) in fields)
        {
            byte[] copy = [.. good];
            copy.AsSpan(offset, size).Fill(0xFF);
            Assert.Null(KernelImage.Find("flat", copy, []));
        }
    }

    [Fact]
    public void A_multiboot_header_may_hold_the_addresses()
    {
        KernelImage kernel = KernelImage.Parse("multiboot", KernelBuilder.Multiboot());

        Assert.Equal((BootProtocol.Multiboot, Load + 0x40L), (kernel.Protocol, kernel.EntryPoint));
        KernelSegment segment = Assert.Single(kernel.Segments);
        Assert.Equal((Load, 0x2000, 0x400), (segment.Address, segment.MemorySize, segment.Content.Length));
        Assert.Equal(0x1BAD_B002u, BinaryPrimitives.ReadUInt32LittleEndian(segment.Content.Span[16..]));
    }

    [Fact]
    public void A_multiboot_header_without_ends_means_the_whole_file() =>
        Assert.Equal(
            0x800,
            KernelImage.Parse("multiboot", KernelBuilder.Multiboot(words => (words[5], words[6]) = (0, 0))).Segments[0].MemorySize);

    [Theory]
    [InlineData(Load)]
    [InlineData(0xC000_0000)]
    public void A_multiboot_header_may_leave_the_addresses_to_elf(uint virtualAddress)
    {
        KernelImage kernel = KernelImage.Parse("multiboot.elf", KernelBuilder.MultibootElf32(virtualAddress));
        Assert.Equal((BootProtocol.Multiboot, Load + 0x20L), (kernel.Protocol, kernel.EntryPoint));
        Assert.Equal((Load, 0x1000, 0x40), (kernel.Segments[0].Address, kernel.Segments[0].MemorySize, kernel.Segments[0].Content.Length));
    }

    [Fact]
    public void A_multiboot_header_counts_only_in_the_first_8_KiB_and_with_its_checksum()
    {
        byte[] wrongSum = KernelBuilder.Multiboot();
        wrongSum[16 + 8] ^= 1;
        Assert.Null(KernelImage.Find("data", wrongSum, []));
        Assert.Null(KernelImage.Find("data", (byte[])[.. new byte[8192], .. KernelBuilder.Multiboot()], []));
    }

    [Theory]
    [MemberData(nameof(FlatGuests))]
    public void Flat_guests_are_no_kernels(string guest) => Assert.Null(KernelImage.Find(guest, GuestImages.Read(guest), []));

    [Theory]
    [InlineData(new byte[0], "no ELF file for x86")]
    [InlineData(new byte[] { 0x7F, 0x45, 0x4C, 0x46 }, "no ELF file for x86")]
    [InlineData(new byte[] { 0x23, 0x21, 0x2F, 0x62, 0x69, 0x6E, 0x2F, 0x73, 0x68 }, "no ELF file for x86")]
    public void What_is_no_kernel_names_the_protocols_that_were_tried(byte[] content, string reason)
    {
        ImageException error = Assert.Throws<ImageException>(() => KernelImage.Parse("text", content));
        Assert.Equal(ImageError.UnknownFormat, error.Error);
        Assert.Equal(
            "The image 'text' is no kernel that can be booted. Tried were Linux bzImage (no signature HdrS at 0x202), "
            + $"multiboot (no header in the first 8 KiB), PVH and Linux ELF ({reason}).",
            error.Message);
    }

    [Fact]
    public void An_elf_file_that_is_no_kernel_names_the_protocols_that_were_tried() =>
        Assert.EndsWith(
            "PVH (no ELF note of Xen with type 18), Linux ELF (neither linked to other addresses than it is loaded to, nor a section .uk_*).",
            Assert.Throws<ImageException>(() => KernelImage.Parse("flat", ElfBuilder.Program().Build())).Message,
            StringComparison.Ordinal);

    [Fact]
    public void Mutated_kernels_give_a_kernel_nothing_or_a_typed_error()
    {
        const int Rounds = 100_000;
        Random random = new(20260202);
        byte[][] originals =
        [
            KernelBuilder.BzImage(), KernelBuilder.Vmlinux().Build(), KernelBuilder.Pvh(ElfBuilder.Base).Build(), KernelBuilder.WithSection(".uk_x"),
            KernelBuilder.Multiboot(), KernelBuilder.MultibootElf32(),
        ];
        ulong[] values =
        [
            0, 1, 0xFFF, 0x7FFF, 0xFFFF, Load, int.MaxValue, uint.MaxValue, long.MaxValue, 1UL << 63, ulong.MaxValue, ulong.MaxValue - 0xFFF,
            KernelMemoryMap.GapStart, KernelMemoryMap.GapStart - 1,
        ];
        int found = 0;
        int refused = 0;
        for (int round = 0; round < Rounds; round++)
        {
            byte[] original = originals[round % originals.Length];
            byte[] image = original[..(random.Next(8) == 0 ? random.Next(8, original.Length) : original.Length)];
            for (int changes = random.Next(1, 4); changes > 0; changes--)
            {
                // All that is looked at lies in the beginning, or is the end of a small file.
                int at = random.Next(Math.Min(image.Length, 0x270) - 7);
                if (random.Next(2) == 0)
                {
                    image[at] = (byte)random.Next(256);
                }
                else
                {
                    BinaryPrimitives.WriteUInt64LittleEndian(image.AsSpan(at & ~3), values[random.Next(values.Length)]);
                }
            }

            try
            {
                if (KernelImage.Find("mutated", image, []) is { } kernel)
                {
                    found++;
                    Assert.All(kernel.Segments, static segment => Assert.InRange(segment.Content.Length, 0, segment.MemorySize));
                    Assert.All(kernel.Segments, static segment => Assert.InRange(segment.End, KernelImage.LowestAddress, KernelMemoryMap.GapStart));
                }
            }
            catch (ImageException)
            {
                refused++;
            }
        }

        Assert.InRange(found, Rounds / 100, Rounds);
        Assert.InRange(refused, Rounds / 100, Rounds);
    }

    private static byte[] Spoil(ElfBuilder elf, Action<ElfBuilder> spoil)
    {
        spoil(elf);
        return elf.Build();
    }

    private static void AddSegment(ElfBuilder elf, ulong physical)
    {
        elf.Segments.Add(new ElfBuilder.Segment { Address = physical, MemorySize = 0x1000 });
        elf.Segments[0].Offset += ElfBuilder.ProgramHeaderSize;
    }

    private static byte[] CutHeaders(byte[] file)
    {
        Put32(file, 28, uint.MaxValue);
        return file;
    }

    private static void Put32(byte[] file, int offset, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(offset), value);

    private static void Put64(byte[] file, int offset, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(offset), value);
}

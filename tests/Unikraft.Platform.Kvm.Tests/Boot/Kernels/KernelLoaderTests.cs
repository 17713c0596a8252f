using System.Text;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Boot.Kernels;

[RequiresKernelHeaders]
public sealed class KernelLoaderTests
{
    private const uint Load = KernelBuilder.LoadAddress;
    private const long RootPointer = 0xE_0000;
    private const string CommandLine = "console=ttyS0 panic=-1";

    private static readonly byte[] Initrd = [.. Enumerable.Range(0, 5000).Select(static i => (byte)i)];

    [Fact]
    public void A_bzimage_is_entered_in_long_mode_with_the_zero_page_in_rsi()
    {
        byte[] file = KernelBuilder.BzImage();
        using GuestMemory memory = new(64 << 20);

        KernelEntry entry = KernelLoader.Load(memory, Boot(file), RootPointer);

        Assert.Equal(new KernelEntry(IsLongMode: true, Load + 0x200, Rax: 0, Rbx: 0, Rsi: 0x7000), entry);
        Assert.Equal(file[(5 * 512)..], memory.Read(Load, KernelBuilder.CodeSize).ToArray());
        Assert.Equal(0, memory.Read<byte>(Load + KernelBuilder.CodeSize));
        Assert.Equal(0x00AF_9B00_0000_FFFFUL, memory.Read<ulong>(0x1010));
        Assert.Equal(0x00CF_9300_0000_FFFFUL, memory.Read<ulong>(0x1018));
        Assert.Equal(CommandLine + "\0", Encoding.ASCII.GetString(memory.Read(0x2_0000, CommandLine.Length + 1)));
    }

    /// <summary>Walks the tables as a processor does.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(0x7000)]
    [InlineData(0x3FFF_FFFF)]
    [InlineData(0x4000_0000)]
    [InlineData(0xFEE0_0000)]
    [InlineData(0xFFFF_FFFF)]
    public void The_first_4_GiB_are_mapped_to_themselves(long address)
    {
        const long AddressBits = 0x000F_FFFF_FFFF_F000;
        using GuestMemory memory = new(64 << 20);
        KernelLoader.Load(memory, Boot(KernelBuilder.BzImage()), RootPointer);

        long entry = 0x9003;
        for (int shift = 39; shift >= 21; shift -= 9)
        {
            Assert.Equal(3, entry & 3);
            entry = memory.Read<long>((entry & AddressBits) + (address >> shift & 511) * 8);
        }

        Assert.Equal(0x83, entry & 0xFFF);
        Assert.Equal(address & -(2 << 20), entry & AddressBits);
    }

    [Fact]
    public void Beyond_4_GiB_nothing_is_mapped()
    {
        using GuestMemory memory = new(64 << 20);
        KernelLoader.Load(memory, Boot(KernelBuilder.BzImage()), RootPointer);
        Assert.Equal(0, memory.Read<long>(0x9008));
        Assert.Equal(0, memory.Read<long>(0xA020));
    }

    /// <summary>The kernel's own declaration of the zero page reads what the loader wrote.</summary>
    [ContractTheory]
    [InlineData(64, "0x0+0x9fc00:1 0xe0000+0x20000:2 0x100000+0x3f00000:1 ", 0x3FFE000L)]
    [InlineData(3072, "0x0+0x9fc00:1 0xe0000+0x20000:2 0x100000+0xbff00000:1 ", 0x7FFFE000L)]
    [InlineData(5120, "0x0+0x9fc00:1 0xe0000+0x20000:2 0x100000+0xbff00000:1 0x100000000+0x80000000:1 ", 0x7FFFE000L)]
    public async Task The_zero_page_is_the_one_of_the_headers(long memoryMb, string regions, long initrd)
    {
        using GuestMemory memory = new(memoryMb << 20);
        KernelLoader.Load(memory, Boot(KernelBuilder.BzImage()), RootPointer);

        string output = await ReadZeroPageAsync(memory);

        Assert.Equal(
            $"{regions}rsdp=0xe0000 sects=4 flag=0xaa55 magic=0x53726448 version=0x20f loader=0xff loadflags=0x1 cmdline=0x20000 "
            + $"initrd=0x{initrd:x}+5000 align=0x0 pref=0x1000000 init=0x800000",
            output);
        Assert.Equal(Initrd, memory.Read(initrd, Initrd.Length).ToArray());
    }

    [ContractFact]
    public async Task A_kernel_without_a_setup_header_gets_the_fields_it_reads()
    {
        using GuestMemory memory = new(64 << 20);
        KernelEntry entry = KernelLoader.Load(memory, Boot(KernelBuilder.Vmlinux().Build()) with { Initrd = default }, 0);

        Assert.Equal(new KernelEntry(IsLongMode: true, Load, Rax: 0, Rbx: 0, Rsi: 0x7000), entry);
        Assert.Equal(
            "0x0+0x9fc00:1 0xe0000+0x20000:2 0x100000+0x3f00000:1 rsdp=0x0 sects=0 flag=0xaa55 magic=0x53726448 version=0x0 loader=0xff "
            + "loadflags=0x0 cmdline=0x20000 initrd=0x0+0 align=0x1000000 pref=0x0 init=0x0",
            await ReadZeroPageAsync(memory));
    }

    [Fact]
    public void A_pvh_kernel_is_entered_with_its_start_info_in_ebx()
    {
        using GuestMemory memory = new(5L << 30);

        KernelEntry entry = KernelLoader.Load(memory, Boot(KernelBuilder.Pvh(ElfBuilder.Base).Build()), RootPointer);

        Assert.Equal(new KernelEntry(IsLongMode: false, ElfBuilder.Base, Rax: 0, Rbx: 0x7000, Rsi: 0), entry);
        Assert.Equal(0x00CF_9B00_0000_FFFFUL, memory.Read<ulong>(0x1010));
        Assert.Equal((0x336E_C578u, 1u, 0u, 1u), (Word(memory, 0), Word(memory, 4), Word(memory, 8), Word(memory, 12)));
        long module = memory.Read<long>(0x7000 + 16);
        Assert.Equal((Initrd.Length, 0L, 0L), (memory.Read<long>(module + 8), memory.Read<long>(module + 16), memory.Read<long>(module + 24)));
        Assert.Equal(Initrd, memory.Read(memory.Read<long>(module), Initrd.Length).ToArray());
        Assert.Equal((0x2_0000, RootPointer), (memory.Read<long>(0x7000 + 24), memory.Read<long>(0x7000 + 32)));
        long regions = memory.Read<long>(0x7000 + 40);
        Assert.Equal(
            [(0, 0x9_FC00, 1u), (0xE_0000, 0x2_0000, 2u), (0x10_0000, 0xBFF0_0000, 1u), (0x1_0000_0000, 0x8000_0000, 1u)],
            Enumerable.Range(0, (int)Word(memory, 48)).Select(i => Region(memory, regions + i * 24)));
    }

    [Fact]
    public void A_multiboot_kernel_is_entered_with_the_magic_number_and_its_information()
    {
        using GuestMemory memory = new(5L << 30);

        KernelEntry entry = KernelLoader.Load(memory, Boot(KernelBuilder.Multiboot()), RootPointer);

        Assert.Equal(new KernelEntry(IsLongMode: false, Load + 0x40, Rax: 0x2BAD_B002, Rbx: 0x7000, Rsi: 0), entry);
        Assert.Equal(0x24Du, Word(memory, 0));
        Assert.Equal((639u, 3071u * 1024), (Word(memory, 4), Word(memory, 8)));
        Assert.Equal((0x2_0000u, 1u), (Word(memory, 16), Word(memory, 20)));
        long module = Word(memory, 24);
        uint start = memory.Read<uint>(module);
        Assert.Equal(start + (uint)Initrd.Length, memory.Read<uint>(module + 4));
        Assert.Equal(0u, start % 4096);
        Assert.Equal(Initrd, memory.Read(start, Initrd.Length).ToArray());
        Assert.Equal((0u, 0u), (memory.Read<uint>(module + 8), memory.Read<uint>(module + 12)));
        Assert.Equal("Unikraft.Platform\0", Encoding.ASCII.GetString(memory.Read(Word(memory, 64), 18)));

        List<(long, long, uint)> regions = [];
        long end = Word(memory, 48) + Word(memory, 44);
        for (long position = Word(memory, 48); position < end; position += memory.Read<uint>(position) + 4)
        {
            regions.Add(Region(memory, position + 4));
        }

        Assert.Equal([(0, 0x9_FC00, 1u), (0xE_0000, 0x2_0000, 2u), (0x10_0000, 0xBFF0_0000, 1u), (0x1_0000_0000, 0x8000_0000, 1u)], regions);
    }

    [Fact]
    public void Without_an_initrd_there_is_no_module()
    {
        using GuestMemory memory = new(64 << 20);
        KernelLoader.Load(memory, Boot(KernelBuilder.Multiboot()) with { Initrd = default }, 0);
        Assert.Equal((0x24Du, 0u, 0u), (Word(memory, 0), Word(memory, 20), Word(memory, 24)));
        KernelLoader.Load(memory, Boot(KernelBuilder.Pvh(ElfBuilder.Base).Build()) with { Initrd = default }, 0);
        Assert.Equal(0x2_0000, memory.Read<long>(0x7000 + 24));
    }

    /// <summary>Kernel and initrd fill the memory to the page, and one byte more is too much.</summary>
    [Fact]
    public void Memory_that_is_too_small_is_refused_to_the_page()
    {
        const int MemoryMb = 32;
        byte[] initrd = new byte[((MemoryMb - 16) << 20) - (int)KernelBuilder.InitSize];
        using GuestMemory memory = new(MemoryMb << 20);
        KernelLoader.Load(memory, Boot(KernelBuilder.BzImage()) with { Initrd = initrd }, 0);

        ImageException error = Assert.Throws<ImageException>(
            () => KernelLoader.Load(memory, Boot(KernelBuilder.BzImage()) with { Initrd = new byte[initrd.Length + 1] }, 0));

        Assert.Equal(ImageError.MemoryTooSmall, error.Error);
        Assert.Equal(
            "The kernel 'kernel' needs 33 MiB of memory for itself and its initrd below 0x2000000, but the instance has 32.",
            error.Message);
    }

    [Fact]
    public void A_kernel_alone_can_be_too_large()
    {
        using GuestMemory memory = new(23 << 20);
        Assert.Equal(
            ImageError.MemoryTooSmall,
            Assert.Throws<ImageException>(() => KernelLoader.Load(memory, Boot(KernelBuilder.BzImage()) with { Initrd = default }, 0)).Error);
    }

    [Fact]
    public void A_command_line_is_as_long_as_the_kernel_takes()
    {
        using GuestMemory memory = new(64 << 20);
        KernelBoot boot = Boot(KernelBuilder.BzImage());
        KernelLoader.Load(memory, boot with { CommandLine = new string('x', 2047) }, 0);

        InvalidRequestException error = Assert.Throws<InvalidRequestException>(
            () => KernelLoader.Load(memory, boot with { CommandLine = new string('x', 2046) + "é" }, 0));

        Assert.Equal("The command line has 2048 bytes; the kernel 'kernel' takes 2047. Pass fewer or shorter arguments.", error.Message);
        Assert.Throws<InvalidRequestException>(() => KernelLoader.Load(memory, boot with { CommandLine = "a\0b" }, 0));
    }

    private static KernelBoot Boot(byte[] image) => new(KernelImage.Parse("kernel", image), Initrd, CommandLine);

    private static uint Word(GuestMemory memory, int offset) => memory.Read<uint>(0x7000 + offset);

    private static (long Address, long Length, uint Kind) Region(GuestMemory memory, long address) =>
        (memory.Read<long>(address), memory.Read<long>(address + 8), memory.Read<uint>(address + 16));

    private static Task<string> ReadZeroPageAsync(GuestMemory memory) => CCompiler.RunAsync(
        $$"""
        #include <stdio.h>
        #include <asm/bootparam.h>
        static const union { unsigned char bytes[4096]; struct boot_params params; } page = { { {{string.Join(',', memory.Read(0x7000, 4096).ToArray())}} } };
        int main(void)
        {
            const struct boot_params *p = &page.params;
            for (int i = 0; i < p->e820_entries; i++)
                printf("0x%llx+0x%llx:%u ", p->e820_table[i].addr, p->e820_table[i].size, p->e820_table[i].type);
            printf("rsdp=0x%llx sects=%u flag=0x%x magic=0x%x version=0x%x loader=0x%x loadflags=0x%x cmdline=0x%x initrd=0x%x+%u align=0x%x "
                "pref=0x%llx init=0x%x", p->acpi_rsdp_addr, p->hdr.setup_sects, p->hdr.boot_flag, p->hdr.header, p->hdr.version,
                p->hdr.type_of_loader, p->hdr.loadflags, p->hdr.cmd_line_ptr, p->hdr.ramdisk_image, p->hdr.ramdisk_size, p->hdr.kernel_alignment,
                p->hdr.pref_address, p->hdr.init_size);
        }
        """);
}

using System.Buffers.Binary;

namespace Unikraft.Platform.Kvm.Tests.Boot.Kernels;

/// <summary>A kernel for each protocol that prints its command line and its initrd, a line each, and powers off.</summary>
internal static class EchoKernel
{
    internal const string BzImage = "bzImage";
    internal const string Vmlinux = "vmlinux";
    internal const string Unikraft = "Unikraft";
    internal const string Pvh = "PVH";
    internal const string Multiboot = "Multiboot";

    /// <summary>Finds the command line (ebx) and the initrd (edi, its length in ecx) through the zero page.</summary>
    private static readonly byte[] FromZeroPage =
    [
        0x8B, 0x9E, 0x28, 0x02, 0x00, 0x00,     // mov ebx, [rsi + 0x228]
        0x8B, 0xBE, 0x18, 0x02, 0x00, 0x00,     // mov edi, [rsi + 0x218]
        0x8B, 0x8E, 0x1C, 0x02, 0x00, 0x00,     // mov ecx, [rsi + 0x21C]
        .. Echo,
    ];

    /// <summary>Likewise through the start info and its first module.</summary>
    private static readonly byte[] FromStartInfo =
    [
        0x8B, 0x43, 0x10,                       // mov eax, [ebx + 16]
        0x8B, 0x38,                             // mov edi, [eax]
        0x8B, 0x48, 0x08,                       // mov ecx, [eax + 8]
        0x8B, 0x5B, 0x18,                       // mov ebx, [ebx + 24]
        .. Echo,
    ];

    /// <summary>Likewise through the multiboot information and its first module.</summary>
    private static readonly byte[] FromMultiboot =
    [
        0x8B, 0x43, 0x18,                       // mov eax, [ebx + 24]
        0x8B, 0x38,                             // mov edi, [eax]
        0x8B, 0x48, 0x04,                       // mov ecx, [eax + 4]
        0x29, 0xF9,                             // sub ecx, edi
        0x8B, 0x5B, 0x10,                       // mov ebx, [ebx + 16]
        .. Echo,
    ];

    /// <summary>The same in 32 and 64 bits.</summary>
    private static ReadOnlySpan<byte> Echo =>
    [
        0xBA, 0xF8, 0x03, 0x00, 0x00,           // mov edx, 0x3F8
        0x8A, 0x03,                             // text: mov al, [ebx]
        0x84, 0xC0,                             // test al, al
        0x74, 0x05,                             // jz end of text
        0xEE,                                   // out dx, al
        0xFF, 0xC3,                             // inc ebx
        0xEB, 0xF5,                             // jmp text
        0xB0, 0x0A, 0xEE,                       // end of text: '\n'
        0x85, 0xC9,                             // initrd: test ecx, ecx
        0x74, 0x09,                             // jz end of initrd
        0x8A, 0x07,                             // mov al, [edi]
        0xEE,                                   // out dx, al
        0xFF, 0xC7,                             // inc edi
        0xFF, 0xC9,                             // dec ecx
        0xEB, 0xF3,                             // jmp initrd
        0xB0, 0x0A, 0xEE,                       // end of initrd: '\n'
        0xBA, 0x00, 0x06, 0x00, 0x00,           // mov edx, 0x600
        0xB0, 0x34, 0xEE,                       // sleep type 5, enable
        0xF4, 0xEB, 0xFD,                       // hlt, again
    ];

    internal static byte[] Build(string protocol) => protocol switch
    {
        BzImage => KernelBuilder.BzImage(static file =>
        {
            BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(0x260), 0x10_0000);
            FromZeroPage.CopyTo(file, 5 * 512 + 0x200);
        }),
        Vmlinux => BuildVmlinux(),
        Unikraft => KernelBuilder.WithSection(".uk_inittab", FromZeroPage),
        Pvh => KernelBuilder.PvhWith(FromStartInfo),
        Multiboot => BuildMultiboot(),
        _ => throw new ArgumentOutOfRangeException(nameof(protocol), protocol, "There is no such kernel."),
    };

    private static byte[] BuildVmlinux()
    {
        ElfBuilder elf = KernelBuilder.Vmlinux();
        elf.Content = FromZeroPage;
        elf.Segments[0].FileSize = (ulong)elf.Content.Length;
        return elf.Build();
    }

    private static byte[] BuildMultiboot()
    {
        byte[] file = KernelBuilder.Multiboot();
        FromMultiboot.CopyTo(file, 0x40);
        return file;
    }
}

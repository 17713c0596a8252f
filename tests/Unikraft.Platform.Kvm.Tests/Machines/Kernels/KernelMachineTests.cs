using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Tests.Boot;
using Unikraft.Platform.Kvm.Tests.Boot.Kernels;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>Kernels of a few instructions, one for each protocol. They need no more of ring 0 than every flavour of KVM has.</summary>
[RequiresKvm]
public sealed class KernelMachineTests
{
    /// <summary>Prints "OK" and powers off when the comparison before it said equal, and resets otherwise. The same in 32 and 64 bits.</summary>
    private static readonly byte[] Verdict =
    [
        0x75, 0x19,                             // jne wrong
        0xBA, 0xF8, 0x03, 0x00, 0x00,           // mov edx, 0x3F8
        0xB0, 0x4F, 0xEE,                       // 'O'
        0xB0, 0x4B, 0xEE,                       // 'K'
        0xB0, 0x0A, 0xEE,                       // '\n'
        0xBA, 0x00, 0x06, 0x00, 0x00,           // mov edx, 0x600
        0xB0, 0x34, 0xEE,                       // sleep type 5, enable
        0xF4, 0xEB, 0xFD,                       // hlt, again
        0xBA, 0x64, 0x00, 0x00, 0x00,           // wrong: mov edx, 0x64
        0xB0, 0xFE, 0xEE,                       // reset
        0xF4, 0xEB, 0xFD,                       // hlt, again
    ];

    /// <summary>Turns around until it is killed.</summary>
    private static readonly byte[] Loop = [0xEB, 0xFE];

    [ContractFact]
    public Task A_bzimage_finds_its_zero_page() => AssertPowersOffAsync(BzImage(
    [
        0x81, 0xBE, 0x02, 0x02, 0x00, 0x00, 0x48, 0x64, 0x72, 0x53,         // cmp dword [rsi + 0x202], "HdrS"
        .. Verdict,
    ]));

    [ContractFact]
    public Task An_elf_kernel_finds_its_command_line()
    {
        ElfBuilder elf = KernelBuilder.Vmlinux();
        elf.Content =
        [
            0x8B, 0x86, 0x28, 0x02, 0x00, 0x00,                             // mov eax, [rsi + 0x228]
            0x81, 0x38, 0x74, 0x65, 0x73, 0x74,                             // cmp dword [rax], "test"
            .. Verdict,
        ];
        elf.Segments[0].FileSize = (ulong)elf.Content.Length;
        return AssertPowersOffAsync(elf.Build());
    }

    [ContractFact]
    public Task A_pvh_kernel_finds_its_start_info()
    {
        byte[] code =
        [
            0x81, 0x3B, 0x78, 0xC5, 0x6E, 0x33,                             // cmp dword [ebx], 0x336EC578
            .. Verdict,
        ];
        ElfBuilder elf = KernelBuilder.Pvh(ElfBuilder.Base + 0x800);
        elf.Segments.Add(new ElfBuilder.Segment { Address = ElfBuilder.Base + 0x800, FileSize = (ulong)code.Length, MemorySize = (ulong)code.Length });
        elf.Segments[0].MemorySize = 0x100;
        elf.Segments[0].Offset += ElfBuilder.ProgramHeaderSize;
        elf.Segments[1].Offset += ElfBuilder.ProgramHeaderSize;
        elf.Segments[2].Offset = (ulong)(ElfBuilder.HeaderSize + 3 * ElfBuilder.ProgramHeaderSize + elf.Content.Length);
        elf.Content = [.. elf.Content, .. code];
        return AssertPowersOffAsync(elf.Build());
    }

    [ContractFact]
    public Task A_multiboot_kernel_finds_the_magic_number_and_its_module()
    {
        byte[] file = KernelBuilder.Multiboot();
        byte[] code =
        [
            0x3D, 0x02, 0xB0, 0xAD, 0x2B,                                   // cmp eax, 0x2BADB002
            0x75, 0x0B,                                                     // jne to the verdict
            0x8B, 0x43, 0x18,                                               // mov eax, [ebx + 24]     the modules
            0x8B, 0x00,                                                     // mov eax, [eax]          the first one
            0x81, 0x38, 0x69, 0x6E, 0x69, 0x74,                             // cmp dword [eax], "init"
            .. Verdict,
        ];
        code.CopyTo(file, 0x40);
        return AssertPowersOffAsync(file);
    }

    [ContractFact]
    public async Task What_a_kernel_finds_wrong_resets_the_machine()
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage([0x83, 0xFE, 0x01, .. Verdict]));
        fixture.Machine.Start();
        Assert.Equal(new KernelExit.Reset(), await fixture.Exited);
        Assert.Empty(fixture.Monitor.Text);
    }

    [ContractFact]
    public async Task A_kernel_without_an_interrupt_table_that_faults_is_a_triple_fault()
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage([0x0F, 0x0B]));
        fixture.Machine.Start();
        Assert.Equal(new KernelExit.TripleFault(), await fixture.Exited);
    }

    [ContractTheory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_kernel_is_killed_wherever_it_is(bool isStarted)
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(Loop), vcpus: 4);
        if (isStarted)
        {
            fixture.Machine.Start();
        }

        fixture.Machine.Kill();
        Assert.Equal(new KernelExit.Killed(), await fixture.Exited);
        fixture.Machine.RequestStop();
        fixture.Machine.Kill();
        Assert.Equal(0, await fixture.Machine.WriteConsoleAsync(new byte[1]).Guarded());
    }

    [ContractFact]
    public async Task A_kernel_is_started_once()
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(Loop));
        fixture.Machine.Start();
        Assert.Throws<InvalidOperationException>(fixture.Machine.Start);
        await fixture.DisposeAsync();
        Assert.Throws<ObjectDisposedException>(fixture.Machine.Start);
    }

    [ContractFact]
    public async Task Nothing_is_leaked()
    {
        const int Rounds = 20;
        await RunAsync(3);
        ProcessResources before = ProcessResources.Capture();
        await RunAsync(Rounds);
        ProcessResources.AssertNoGrowth(before, tolerance: 8);

        async Task RunAsync(int rounds)
        {
            for (int i = 0; i < rounds; i++)
            {
                await AssertPowersOffAsync(BzImage([0x39, 0xC0, .. Verdict]));
                await using KernelMachineFixture idle = await CreateAsync(BzImage(Loop), vcpus: 2);
                await Assert.ThrowsAsync<ImageException>(() => CreateAsync(KernelBuilder.BzImage(), memoryMb: 8));
            }
        }
    }

    private static byte[] BzImage(byte[] code) => KernelBuilder.BzImage(file =>
    {
        BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(0x260), 0x10_0000);
        code.CopyTo(file, 5 * 512 + 0x200);
    });

    private static Task<KernelMachineFixture> CreateAsync(byte[] image, int vcpus = 1, long memoryMb = 32) => KernelMachineFixture.CreateAsync(
        new KernelBoot(KernelImage.Parse("tiny", image), "initrd"u8.ToArray(), "test of the command line"),
        vcpus,
        memoryMb);

    private static async Task AssertPowersOffAsync(byte[] image)
    {
        await using KernelMachineFixture fixture = await CreateAsync(image);
        fixture.Machine.Start();
        Assert.Equal(new KernelExit.PoweredOff(), await fixture.Exited);
        Assert.Equal("OK\n", fixture.Monitor.Text);
    }
}

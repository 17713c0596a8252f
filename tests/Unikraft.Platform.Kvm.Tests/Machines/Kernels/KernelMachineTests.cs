using System.Buffers.Binary;
using Unikraft.Platform.Hypervisors;
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

    /// <summary>The stop code of a kernel that ends in order without having told how far it has come.</summary>
    private static readonly StopCode Ended = new(StopCodeReason.Ok, initLevel: 0, isShuttingDown: true);

    /// <summary>Turns around until it is killed.</summary>
    private static readonly byte[] Loop = [0xEB, 0xFE];

    [ContractFact]
    public Task A_bzimage_finds_its_zero_page() => AssertPowersOffAsync(BzImage(
    [
        0x81, 0xBE, 0x02, 0x02, 0x00, 0x00, 0x48, 0x64, 0x72, 0x53,         // cmp dword [rsi + 0x202], "HdrS"
        .. Verdict,
    ]), initLevel: 0);

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
        await fixture.StartAsync();
        Assert.Equal(new MachineExit.PoweredOff(ExitCode: null, Ended), await fixture.Exited);
        Assert.Empty(fixture.Monitor.Text);
    }

    [ContractFact]
    public async Task A_kernel_without_an_interrupt_table_that_faults_is_a_triple_fault()
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage([0x0F, 0x0B]));
        await fixture.StartAsync();
        Assert.Equal(new MachineExit.TripleFault(new StopCode(StopCodeReason.Exception, errno: 131, initLevel: 0)), await fixture.Exited);
    }

    /// <summary>Every convention by which a kernel ends, as the bytes that it executes.</summary>
    public static TheoryData<string, MachineExit> Endings => new()
    {
        // mov dx, 0x604; mov ax, 0x2000; out dx, ax
        { "66BA0406 66B80020 66EF F4", new MachineExit.PoweredOff(0, new StopCode(StopCodeReason.Ok, initLevel: 0, isShuttingDown: true)) },

        // mov dx, 0x501; mov al, 42; out dx, al
        { "66BA0105 B02A EE F4", new MachineExit.PoweredOff(42, new StopCode(StopCodeReason.Ok, initLevel: 0, isShuttingDown: true)) },

        // mov al, 7; out 0xF4, al
        { "B007 E6F4 F4", new MachineExit.PoweredOff(7, new StopCode(StopCodeReason.Ok, initLevel: 0, isShuttingDown: true)) },

        // mov dx, 0x505; mov al, 1; out dx, al
        { "66BA0505 B001 EE F4", new MachineExit.PoweredOff(null, new StopCode(StopCodeReason.Exception, errno: 131, initLevel: 0)) },

        // mov dx, 0x628; mov eax, 127; out dx, eax; mov dl, 0x2C; mov eax, 3; out dx, eax; mov dl, 0x30; mov eax, 0x0C04; out dx, eax
        {
            "66BA2806 B87F000000 EF B22C B803000000 EF B230 B8040C0000 EF F4",
            new MachineExit.PoweredOff(3, new StopCode(StopCodeReason.PageFault, errno: 12))
        },
    };

    [ContractTheory]
    [MemberData(nameof(Endings))]
    public async Task Every_convention_to_end_is_understood(string code, MachineExit end)
    {
        ArgumentNullException.ThrowIfNull(code);
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(Convert.FromHexString(code.Replace(" ", "", StringComparison.Ordinal))));
        await fixture.StartAsync();
        Assert.Equal(end, await fixture.Exited);
    }

    [ContractFact]
    public async Task A_kernel_says_on_the_platform_device_in_memory_that_it_runs()
    {
        // mov eax, [0xD0100000]; cmp eax, magic; jne over; mov dword [0xD0100008], 127; over: hlt
        byte[] code = Convert.FromHexString("BB000010D0 8B03 3D554B5044 7507 C743087F000000 F4 EBFD".Replace(" ", "", StringComparison.Ordinal));
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(code));
        Assert.False(fixture.Machine.HasReachedMain);
        await fixture.StartAsync();
        await fixture.Monitor.MainReached;
        Assert.True(fixture.Machine.HasReachedMain);
        fixture.Machine.Kill();
        Assert.Equal(new MachineExit.Killed(), await fixture.Exited);
    }

    [ContractTheory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_kernel_is_killed_wherever_it_is(bool isStarted)
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(Loop), vcpus: 4);
        if (isStarted)
        {
            await fixture.StartAsync();
        }

        fixture.Machine.Kill();
        Assert.Equal(new MachineExit.Killed(), await fixture.Exited);
        fixture.Machine.RequestStop();
        fixture.Machine.Kill();
        Assert.Equal(0, await fixture.Machine.WriteConsoleAsync(new byte[1]).Guarded());
    }

    [ContractFact]
    public async Task A_kernel_is_started_once()
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(Loop));
        await fixture.StartAsync();
        await Assert.ThrowsAsync<InvalidOperationException>(fixture.StartAsync);
        await fixture.DisposeAsync();
        await Assert.ThrowsAsync<ObjectDisposedException>(fixture.StartAsync);
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
                await AssertPowersOffAsync(BzImage([0x39, 0xC0, .. Verdict]), initLevel: 0);
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

    private static Task<KernelMachineFixture> CreateAsync(byte[] image, int vcpus = 1, int memoryMb = 32) => KernelMachineFixture.CreateAsync(
        new GuestImageContent(image) { Initrd = "initrd"u8.ToArray(), CommandLine = "test of the command line" },
        vcpus,
        memoryMb);

    /// <summary>What is no bzImage has reached its main entry point when it prints.</summary>
    private static async Task AssertPowersOffAsync(byte[] image, int initLevel = StopCode.AppInitLevel)
    {
        await using KernelMachineFixture fixture = await CreateAsync(image);
        await fixture.StartAsync();
        Assert.Equal(new MachineExit.PoweredOff(0, new StopCode(StopCodeReason.Ok, initLevel: initLevel, isShuttingDown: true)), await fixture.Exited);
        Assert.Equal("OK\n", fixture.Monitor.Text);
    }
}

using System.Buffers.Binary;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Tests.Boot.Kernels;
using Unikraft.Platform.Kvm.Tests.Snapshots;
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

    /// <summary>Prints the end of a line and turns around: mov edx, 0x3F8; mov al, 10; out dx, al; a loop.</summary>
    private static readonly byte[] LineAndLoop = [0xBA, 0xF8, 0x03, 0x00, 0x00, 0xB0, 0x0A, 0xEE, 0xEB, 0xFE];

    /// <summary>Turns around until it is killed.</summary>
    private static readonly byte[] Loop = [0xEB, 0xFE];

    [ContractFact]
    public Task A_bzimage_finds_its_zero_page() => AssertPowersOffAsync(BzImage(
    [
        0x81, 0xBE, 0x02, 0x02, 0x00, 0x00, 0x48, 0x64, 0x72, 0x53,         // cmp dword [rsi + 0x202], "HdrS"
        .. Verdict,
    ]), initLevel: 0);

    [ContractFact]
    public Task A_pvh_kernel_finds_its_start_info() => AssertPowersOffAsync(KernelBuilder.PvhWith(
    [
        0x81, 0x3B, 0x78, 0xC5, 0x6E, 0x33,                                 // cmp dword [ebx], 0x336EC578
        .. Verdict,
    ]));

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

    [ContractTheory]
    [MemberData(nameof(EchoKernels))]
    public async Task Every_protocol_hands_over_the_command_line_and_the_initrd(string protocol, string commandLine)
    {
        await using KernelMachineFixture fixture = await CreateAsync(EchoKernel.Build(protocol));
        await fixture.StartAsync();
        Assert.IsType<MachineExit.PoweredOff>(await fixture.Exited);
        Assert.Equal($"{commandLine}\ninitrd\n", fixture.Monitor.Text);
    }

    public static TheoryData<string, string> EchoKernels => new()
    {
        { EchoKernel.BzImage, "test of the command line" },
        { EchoKernel.Vmlinux, "test of the command line" },
        { EchoKernel.Pvh, "test of the command line" },
        { EchoKernel.Multiboot, "test of the command line" },
        { EchoKernel.Unikraft, "kernel test of the command line --" },
    };

    /// <summary>The timer that a kernel has set is set in a clone, and so in what is captured of that.</summary>
    [ContractFact]
    public async Task The_timer_goes_on_in_a_clone()
    {
        const uint Count = 0x1234;

        // mov al, 0x34; out 0x43, al; mov al, 0x34; out 0x40, al; mov al, 0x12; out 0x40, al; mov edx, 0x3F8; mov al, 10; out dx, al; a loop
        byte[] code = Convert.FromHexString("B034E643 B034E640 B012E640 BAF8030000 B00AEE EBFE".Replace(" ", "", StringComparison.Ordinal));
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(code));
        await fixture.StartAsync();
        await fixture.ReadLineAsync("");
        using IMachineSnapshot snapshot = await fixture.Machine.CaptureAsync().Guarded();
        await using TestMachine clone = await fixture.RestoreAsync(snapshot);
        using IMachineSnapshot ofClone = await clone.CaptureAsync();
        Assert.Equal((Count, Count), (CountOf(snapshot), CountOf(ofClone)));

        static uint CountOf(IMachineSnapshot snapshot) => (uint)((KvmSnapshot)snapshot).Kernel!.Timer.Channels[0];
    }

    /// <summary>The host tells another frequency than it has: what KVM is asked for is then the one that it has.</summary>
    [ContractFact]
    public async Task The_counter_of_a_kernel_runs_in_a_clone_as_fast_as_it_was_told()
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(LineAndLoop));
        await fixture.StartAsync();
        await fixture.ReadLineAsync("");
        using IMachineSnapshot snapshot = await fixture.Machine.CaptureAsync().Guarded();
        int told = ((KvmSnapshot)snapshot).Kernel!.TscKhz;
        Assert.NotEqual(0, told);

        await using KvmHypervisor scaling = KernelMachineFixture.NewHypervisor(new HostTsc(told / 2, CanScale: true));
        await using TestMachine clone = await KernelMachineFixture.RestoreAsync(scaling, snapshot);
        using IMachineSnapshot ofClone = await clone.CaptureAsync();
        Assert.Equal(told, ((KvmSnapshot)ofClone).Kernel!.TscKhz);

        await using KvmHypervisor steady = KernelMachineFixture.NewHypervisor(new HostTsc(told / 2, CanScale: false));
        HypervisorException error = await Assert.ThrowsAsync<HypervisorException>(() => KernelMachineFixture.RestoreAsync(steady, snapshot));
        Assert.Contains($"{told} kHz", error.Message, StringComparison.Ordinal);
        Assert.Contains($"{told / 2} kHz", error.Message, StringComparison.Ordinal);

        using TestDirectory folder = new();
        Guid id = Guid.NewGuid();
        await using ISnapshotDirectory directory = await fixture.Hypervisor.GetFeature<ISnapshotFiles>()!.OpenDirectoryAsync(folder.Path).Guarded();
        await directory.SaveAsync(id, snapshot).Guarded();
        using IMachineSnapshot opened = await directory.OpenAsync(id).Guarded();
        IncompatibleMachineException ofFile = await Assert.ThrowsAsync<IncompatibleMachineException>(() => KernelMachineFixture.RestoreAsync(steady, opened));
        Assert.StartsWith(folder.Path, ofFile.Path, StringComparison.Ordinal);
    }

    /// <summary>What is asked for reaches KVM: a frequency that no processor can do.</summary>
    [ContractFact]
    public async Task A_frequency_that_kvm_refuses_is_an_error()
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(LineAndLoop));
        await fixture.StartAsync();
        await fixture.ReadLineAsync("");
        using KvmSnapshot snapshot = (KvmSnapshot)await fixture.Machine.CaptureAsync().Guarded();
        using KvmDevice device = KvmDevice.Open();
        using KvmSnapshot elsewhere = new(
            snapshot.ShareMemory(),
            snapshot.Layout,
            snapshot.Vcpus,
            snapshot.Device,
            snapshot.Pause,
            snapshot.Throttled,
            snapshot.Disks)
        {
            Kernel = snapshot.Kernel! with { TscKhz = HostTsc.Of(device).CanScale ? int.MaxValue : 1 },
        };

        await using KvmHypervisor scaling = KernelMachineFixture.NewHypervisor(new HostTsc(snapshot.Kernel.TscKhz, CanScale: true));
        HypervisorException error = await Assert.ThrowsAsync<HypervisorException>(() => KernelMachineFixture.RestoreAsync(scaling, elsewhere));
        Assert.Contains("KVM_SET_TSC_KHZ", error.Message, StringComparison.Ordinal);
    }

    /// <summary>KVM's log of what a kernel writes, on the page tables of the processor or of KVM, against a comparison of all pages.</summary>
    [ContractFact]
    public async Task What_is_stored_of_a_kernel_is_what_a_comparison_of_all_pages_finds()
    {
        const int Rounds = 25;

        // So large that what lies scattered in it is never folded, which would bring all pages into a new layer.
        const int MemoryMb = 96;

        // What the guest reads may count as written. With nested paging of AMD whatever the processor looks up in a page table does, one of each level; and KVM logs a page
        // that is only read when its host has moved it and it is mapped anew: the code.
        const int Read = 3 + 1;

        // For each byte of input writes to 40 words all over the memory from 4 to 5 MiB, and prints the end of a line.
        byte[] code =
        [
            0xBA, 0xFD, 0x03, 0x00, 0x00,                   // start: mov edx, 0x3FD
            0xEC,                                           // wait: in al, dx
            0xA8, 0x01,                                     // test al, 1
            0x74, 0xFB,                                     // jz wait
            0xB2, 0xF8,                                     // mov dl, 0xF8
            0xEC,                                           // in al, dx
            0xB9, 0x28, 0x00, 0x00, 0x00,                   // mov ecx, 40
            0x69, 0xF6, 0x6D, 0x4E, 0xC6, 0x41,             // next: imul esi, esi, 1103515245
            0x81, 0xC6, 0x39, 0x30, 0x00, 0x00,             // add esi, 12345
            0x89, 0xF7,                                     // mov edi, esi
            0xC1, 0xEF, 0x09,                               // shr edi, 9
            0x81, 0xE7, 0xFC, 0xFF, 0x0F, 0x00,             // and edi, 0xFFFFC
            0x89, 0xB7, 0x00, 0x00, 0x40, 0x00,             // mov [rdi + 0x400000], esi
            0xFF, 0xC9,                                     // dec ecx
            0x75, 0xDF,                                     // jnz next
            0xB0, 0x0A, 0xEE,                               // mov al, 10; out dx, al
            0xEB, 0xC8,                                     // jmp start
        ];
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(code), memoryMb: MemoryMb);
        await fixture.StartAsync();
        KernelMachine machine = (KernelMachine)fixture.Machine;
        SnapshotComparison comparison = new(machine.Memory);
        for (int round = 0; round < Rounds; round++)
        {
            await WriteAsync();
            using KvmSnapshot snapshot = await machine.CaptureAsync(
                CaptureOptions.Default,
                new CaptureHooks(BeforeCut: async () => await WriteAsync(), InCut: comparison.Copy),
                CancellationToken.None).Guarded();
            (int changed, IReadOnlyList<int> rewritten) = comparison.AssertStored(snapshot, $"Round {round}");

            // Twice 40 words, some of them on one page. The first time there is what was loaded as well, zeroes included.
            Assert.InRange(changed, 40, round == 0 ? int.MaxValue : 80);
            Assert.True(round == 0 || rewritten.Count <= Read, $"Round {round} stored the pages {string.Join(", ", rewritten)}, which have not changed.");
        }

        async Task WriteAsync()
        {
            await machine.TypeAsync("");
            await fixture.ReadLineAsync("");
        }
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

    /// <summary>Nobody has asked for the end, and neither the app nor the kernel has told one: no bit, no code, and no restart on failure.</summary>
    [ContractFact]
    public async Task A_kernel_that_kvm_gives_up_on_ends_without_a_reason()
    {
        // mov eax, 0xD0000000; jmp rax: into the registers of a device, where KVM finds no instruction to emulate
        byte[] image = BzImage(Convert.FromHexString("B8000000D0FFE0"));
        await using KernelMachineFixture fixture = await CreateAsync(image);
        await fixture.StartAsync();
        HypervisorException error = Assert.IsType<HypervisorException>(Assert.IsType<MachineExit.Failed>(await fixture.Exited).Error);
        Assert.Contains("0xd0000000", error.Message, StringComparison.Ordinal);

        await using IUnikraftPlatform platform = new UnikraftPlatformBuilder().UseHypervisor(static _ => KernelMachineFixture.NewHypervisor()).Build();
        Instance instance = await platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Image = GuestImage.FromContent("kernel", new GuestImageContent(image)),
            MemoryMb = 32,
            RestartPolicy = RestartPolicy.OnFailure,
        }).Guarded();
        await platform.Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded();
        Instance stopped = platform.Instances.Get(instance.Uuid);
        Assert.Equal((InstanceState.Stopped, StopReason.None), (stopped.State, stopped.StopReason));
        Assert.Null(stopped.ExitCode);
        Assert.Null(stopped.StopCode);
        Assert.Equal(0, stopped.RestartCount);
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

    /// <summary>What a kernel does to the I/O APIC before it resets the machine, and what that looks like.</summary>
    public static TheoryData<string, StopCode> Resets => new()
    {
        // mov ebx, 0xFEC00000; mov dword [rbx], 0x18; mov dword [rbx + 0x10], 0x24: input 4 is open
        { "BB0000C0FE C70318000000 C7431024000000", new StopCode(StopCodeReason.Exception, errno: 131, initLevel: 0) },

        // ... mov dword [rbx + 0x10], 0x10024: and closed again
        { "BB0000C0FE C70318000000 C7431024000000 C7431024000100", Ended },

        // mov dword [rbx + 0x10], 0x700: that of the older controllers is open
        { "BB0000C0FE C70318000000 C7431000070000", Ended },

        // mov dx, 0x628; mov eax, 0x102; out dx, eax: input 4 is open, but the kernel is shutting down, it says
        {
            "BB0000C0FE C70318000000 C7431024000000 66BA2806 B802010000 EF",
            new StopCode(StopCodeReason.Ok, initLevel: 2, isShuttingDown: true)
        },
    };

    [ContractTheory]
    [MemberData(nameof(Resets))]
    public async Task A_reset_by_a_kernel_that_can_still_be_interrupted_is_a_panic(string code, StopCode end)
    {
        ArgumentNullException.ThrowIfNull(code);

        // mov al, 0xFE; out 0x64, al; hlt
        byte[] bytes = Convert.FromHexString($"{code} B0FE E664 F4".Replace(" ", "", StringComparison.Ordinal));
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(bytes));
        await fixture.StartAsync();
        Assert.Equal(new MachineExit.PoweredOff(ExitCode: null, end), await fixture.Exited);
    }

    /// <summary>All that a vCPU thread does from one cut to the next is to make the cut and to go on.</summary>
    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task A_cut_allocates_nothing(int vcpus)
    {
        await using KernelMachineFixture fixture = await CreateAsync(BzImage(LineAndLoop), vcpus);
        await fixture.StartAsync();
        await fixture.ReadLineAsync("");
        KernelMachine machine = (KernelMachine)fixture.Machine;
        CutAllocations allocations = new();
        for (int i = 0; i < 20; i++)
        {
            await fixture.TypeAsync("x");
            (await machine.CaptureAsync(CaptureOptions.Default, allocations.Hooks, CancellationToken.None).Guarded()).Dispose();
        }

        allocations.AssertNone();
    }

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

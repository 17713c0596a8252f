using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>The prebuilt guests from boot to end.</summary>
public sealed class GuestTests : KvmTest
{
    private static readonly StopCode CleanStop = new(StopCodeReason.Ok, 0, 2, isShuttingDown: true);

    [ContractFact]
    public async Task Arguments_and_environment_reach_the_guest()
    {
        await using TestMachine machine = await CreateAsync(Configuration(GuestImages.Get("hello"), 2, 37, "", "two words", "ä€") with
        {
            Name = "my-name",
            Env = new Dictionary<string, string>(StringComparer.Ordinal) { ["EMPTY"] = "", ["PAIR"] = "a=b" },
        });
        Assert.False(machine.Machine.HasReachedMain);
        await machine.Machine.StartAsync();

        Assert.Equal(new MachineExit.PoweredOff(0, CleanStop), await machine.Exited);
        Assert.True(machine.Machine.HasReachedMain);
        Assert.Equal(1, machine.Monitor.TimesMainReached);
        Assert.Equal(
            [
                "Hello from a flat guest: 2 vCPU(s), 37 MiB",
                "arg[0]=my-name",
                "arg[1]=",
                "arg[2]=two words",
                "arg[3]=\u00C3\u00A4\u00E2\u0082\u00AC",
                "env EMPTY=",
                "env PAIR=a=b",
            ],
            machine.Monitor.Lines);
    }

    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    [InlineData(8)]
    public async Task The_platform_holds_the_contract_as_seen_from_inside(int vcpus)
    {
        await using TestMachine machine = await CreateAsync("contract", vcpus, 64);
        await machine.Machine.StartAsync();
        MachineExit exit = await machine.Exited;
        Assert.DoesNotContain(machine.Monitor.Lines, line => line.StartsWith("FAILED", StringComparison.Ordinal));
        Assert.Equal(new MachineExit.PoweredOff(0, CleanStop), exit);
    }

    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    [InlineData(7)]
    [InlineData(8)]
    public async Task All_vcpus_run(int vcpus)
    {
        await using TestMachine machine = await BootAsync("counter", vcpus, 32, "--smp", "--busy", "--period-ms", "0");
        CounterLine line = await machine.TickAsync();
        Assert.Equal(vcpus == 1 ? 1 : vcpus - 1, Math.Max(1, line.Cpus.Count));
        Assert.NotEqual("00000000000000000000000000000000", line.Generation);
        CounterLine later = line;
        while (vcpus > 1 && later.Cpus.Zip(line.Cpus).Any(pair => pair.First <= pair.Second))
        {
            later = await machine.TickAsync();
            Assert.Equal(line.Nonce, later.Nonce);
        }

        machine.Machine.RequestStop();
        Assert.Equal(new MachineExit.PoweredOff(0, CleanStop), await machine.Exited);
    }

    [ContractFact]
    public async Task The_guest_is_told_the_frequency_of_its_counter()
    {
        await using TestMachine machine = await BootAsync("counter", "--period-ms", "0");
        long khz = machine.Memory.Read<long>(0xF_0000 + 56);
        Assert.InRange(khz, 100_000, 10_000_000);
        IMachineSnapshot snapshot = await machine.CaptureAsync();
        await using TestMachine clone = await RestoreAsync(snapshot);
        Assert.Equal(khz, clone.Memory.Read<long>(0xF_0000 + 56));
        snapshot.Dispose();
    }

    [ContractTheory]
    [InlineData("div0", 1, StopCodeReason.Math, 0)]
    [InlineData("ud", 1, StopCodeReason.InvalidOperation, 0)]
    [InlineData("read-unmapped", 1, StopCodeReason.PageFault, 14)]
    [InlineData("write-unmapped", 1, StopCodeReason.PageFault, 14)]
    [InlineData("write-readonly", 1, StopCodeReason.SecurityViolation, 13)]
    [InlineData("exec-data", 1, StopCodeReason.SecurityViolation, 13)]
    [InlineData("stack", 1, StopCodeReason.SegmentationFault, 12)]
    [InlineData("oom", 1, StopCodeReason.PageFault, 12)]
    [InlineData("gp", 1, StopCodeReason.SegmentationFault, 14)]
    [InlineData("noncanonical", 1, StopCodeReason.SegmentationFault, 14)]
    [InlineData("read-ring0", 1, StopCodeReason.SecurityViolation, 13)]
    [InlineData("x87", 1, StopCodeReason.Math, 0)]
    [InlineData("breakpoint", 1, StopCodeReason.InvalidOperation, 0)]
    [InlineData("single-step", 1, StopCodeReason.InvalidOperation, 0)]
    [InlineData("secondary", 2, StopCodeReason.InvalidOperation, 0)]
    [InlineData("secondary", 8, StopCodeReason.InvalidOperation, 0)]
    [InlineData("syscall", 1, StopCodeReason.InvalidOperation, 0)]
    [InlineData("jump-null", 1, StopCodeReason.PageFault, 14)]
    public async Task A_crash_has_exactly_its_stop_code(string kind, int vcpus, StopCodeReason reason, int errno)
    {
        await using TestMachine machine = await BootAsync("crash", vcpus, 16, kind);

        MachineExit.Crashed crashed = Assert.IsType<MachineExit.Crashed>(await machine.Exited);

        Assert.Equal(new StopCode(reason, errno), crashed.StopCode);
        Assert.Equal(vcpus - 1, crashed.Fault.Vcpu);
        Assert.Equal($"crashing: {kind}", Assert.Single(machine.Monitor.Lines));
        if (kind is "oom")
        {
            Assert.Equal("0x000C7F04", crashed.StopCode.ToString());
            Assert.Equal(16UL << 20, crashed.Fault.Address);
        }
        else if (kind is not "jump-null")
        {
            Assert.InRange(crashed.Fault.InstructionPointer, 0xF_D000UL, 0x20_0000UL);
        }
    }

    /// <remarks>Not in the SVM lab: the CPU that QEMU emulates raises neither #XM nor #AC.</remarks>
    [ContractTheory]
    [Trait("Lab", "NotEmulated")]
    [InlineData("sse", StopCodeReason.Math)]
    [InlineData("misalign", StopCodeReason.InvalidOperation)]
    public Task A_crash_that_an_emulator_lets_pass_has_exactly_its_stop_code(string kind, StopCodeReason reason) =>
        A_crash_has_exactly_its_stop_code(kind, 1, reason, 0);

    [ContractTheory]
    [InlineData("exit", "7", 7)]
    [InlineData("exit", "-1", -1)]
    [InlineData("return", "3", 3)]
    [InlineData("return", "-2147483648", int.MinValue)]
    [InlineData("no such kind", "", 64)]
    public async Task An_exit_code_reaches_the_caller(string kind, string argument, int code)
    {
        await using TestMachine machine = await BootAsync("crash", 1, 16, argument.Length == 0 ? [kind] : [kind, argument]);
        Assert.Equal(new MachineExit.PoweredOff(code, CleanStop), await machine.Exited);
    }

    [ContractFact]
    public async Task An_abort_has_its_error_and_no_exit_code()
    {
        await using TestMachine machine = await BootAsync("crash", "abort", "71");
        Assert.Equal(new MachineExit.PoweredOff(null, new StopCode(StopCodeReason.Exception, 71)), await machine.Exited);
    }

    [ContractFact]
    public async Task A_guest_that_vanishes_says_nothing()
    {
        await using TestMachine machine = await BootAsync("crash", "vanish");
        Assert.Equal(new MachineExit.PoweredOff(null, null), await machine.Exited);
    }

    [ContractFact]
    public async Task A_stop_request_is_obeyed_by_whoever_listens()
    {
        await using TestMachine exits = await BootAsync("crash", "exit-on-stop", "5");
        await using TestMachine crashes = await BootAsync("crash", "crash-on-stop");
        Assert.False(exits.Machine.Exited.IsCompleted || crashes.Machine.Exited.IsCompleted);
        exits.Machine.RequestStop();
        crashes.Machine.RequestStop();
        Assert.Equal(new MachineExit.PoweredOff(5, CleanStop), await exits.Exited);
        Assert.Equal(new StopCode(StopCodeReason.InvalidOperation), Assert.IsType<MachineExit.Crashed>(await crashes.Exited).StopCode);
    }

    [ContractTheory]
    [InlineData("loop")]
    [InlineData("ignore-stop")]
    public async Task An_app_that_does_not_listen_is_killed(string kind)
    {
        await using TestMachine machine = await BootAsync("crash", kind);
        await machine.Monitor.ReadLineAsync("crashing");
        machine.Machine.RequestStop();
        machine.Machine.KillApp();

        MachineExit.Crashed crashed = Assert.IsType<MachineExit.Crashed>(await machine.Exited);

        Assert.Equal(new StopCode(StopCodeReason.Exception, 110, 127, isShuttingDown: true), crashed.StopCode);
        Assert.Equal((0, 2), (crashed.Fault.Vcpu, crashed.Fault.Vector));
    }

    [ContractFact]
    public async Task An_app_is_killed_also_while_paused_or_before_the_start()
    {
        await using TestMachine paused = await BootAsync("crash", "loop");
        await paused.Machine.PauseAsync().AsTask().Guarded();
        paused.Machine.KillApp();
        Assert.False(paused.Machine.Exited.IsCompleted);
        paused.Machine.Resume();
        Assert.Equal(110, Assert.IsType<MachineExit.Crashed>(await paused.Exited).StopCode.Errno);

        await using TestMachine fresh = await CreateAsync("crash", 2, 16, "loop");
        fresh.Machine.KillApp();
        await fresh.Machine.StartAsync();
        Assert.Equal(new StopCode(StopCodeReason.Exception, 110, 0, isShuttingDown: true), Assert.IsType<MachineExit.Crashed>(await fresh.Exited).StopCode);
    }

    [ContractFact]
    public async Task A_fault_without_a_handler_is_a_triple_fault()
    {
        await using TestMachine machine = await BootAsync("crash", "crash-on-stop");
        await machine.Monitor.ReadLineAsync("crashing");
        await machine.Machine.PauseAsync().AsTask().Guarded();
        machine.Memory.Write(0x2000, new byte[0x1000]);
        machine.Machine.Resume();
        machine.Machine.RequestStop();

        Assert.Equal(new MachineExit.TripleFault(new StopCode(StopCodeReason.Exception, 131)), await machine.Exited);
    }
}

using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Tests.Boot;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

public sealed class LifecycleTests : KvmTest
{
    private static readonly MachineExit Killed = new MachineExit.Killed();

    [ContractFact]
    public async Task A_machine_is_started_once()
    {
        await using TestMachine machine = await CreateAsync("counter", 1, 16, "--period-ms", "0");
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => machine.Machine.StartAsync(new CancellationToken(canceled: true)).AsTask());
        await machine.Machine.StartAsync();
        await Assert.ThrowsAsync<InvalidOperationException>(() => machine.Machine.StartAsync().AsTask());
        Assert.Equal(1, (await machine.TickAsync()).Tick);
    }

    [ContractFact]
    public async Task Of_many_starts_at_once_one_succeeds()
    {
        await using TestMachine machine = await CreateAsync("counter", 1, 16, "--period-ms", "0");
        int[] started = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(async () =>
        {
            try
            {
                await machine.Machine.StartAsync();
                return 1;
            }
            catch (InvalidOperationException)
            {
                return 0;
            }
        })));
        Assert.Equal(1, started.Sum());
        Assert.Equal(1, (await machine.TickAsync()).Tick);
    }

    [ContractFact]
    public async Task A_machine_that_was_disposed_does_not_start()
    {
        TestMachine machine = await CreateAsync("hello", 1, 16);
        await machine.DisposeAsync();
        await machine.DisposeAsync();
        Assert.Equal(Killed, await machine.Exited);
        await Assert.ThrowsAsync<ObjectDisposedException>(() => machine.Machine.StartAsync().AsTask());
        await Assert.ThrowsAnyAsync<InvalidOperationException>(() => machine.CaptureAsync());
        Assert.Equal("", machine.Monitor.Text);
    }

    [ContractFact]
    public async Task A_machine_that_was_disposed_answers_without_harm()
    {
        TestMachine machine = await BootAsync("counter", "--period-ms", "0");
        IMachineStatistics statistics = machine.Machine.GetFeature<IMachineStatistics>()!;
        Assert.InRange(statistics.PrivateBytes, 1, 32 << 20);
        await machine.DisposeAsync();
        await using TestMachine other = await BootAsync("counter", "--period-ms", "0");

        machine.Machine.Kill();
        machine.Machine.KillApp();
        machine.Machine.RequestStop();
        await machine.Machine.PauseAsync().AsTask().Guarded();
        machine.Machine.Resume();
        Assert.Equal(0, await machine.Machine.WriteConsoleAsync("x"u8.ToArray()).Guarded());
        Assert.Equal(0, statistics.PrivateBytes);
        Assert.InRange(statistics.Exits, 1, long.MaxValue);
        await Assert.ThrowsAnyAsync<InvalidOperationException>(() => machine.CaptureAsync());
        Assert.Equal(1, (await other.TickAsync()).Tick);
    }

    [ContractFact]
    public async Task Pauses_nest()
    {
        await using TestMachine machine = await BootAsync("counter", "--busy", "--period-ms", "0", "--rate", "100000");
        await machine.Machine.PauseAsync().AsTask().Guarded();
        await machine.Machine.PauseAsync().AsTask().Guarded();
        byte[] before = Copy(machine);
        await machine.SendAsync("tick");
        machine.Machine.Resume();
        AssertSameBehindTheInfoPage(before, Copy(machine));
        machine.Machine.Resume();
        Assert.Equal(1, CounterLine.Parse(await machine.Monitor.ReadLineAsync("nonce=")).Tick);
        Assert.Throws<InvalidOperationException>(machine.Machine.Resume);
        Assert.Equal(2, (await machine.TickAsync()).Tick);
    }

    [ContractFact]
    public async Task Nothing_but_a_pause_is_resumed()
    {
        await using TestMachine machine = await CreateAsync("counter", 1, 16, "--period-ms", "0");
        Assert.Throws<InvalidOperationException>(machine.Machine.Resume);
        Assert.Equal("", machine.Monitor.Text);
        await machine.Machine.PauseAsync().AsTask().Guarded();
        await machine.Machine.StartAsync();
        Assert.False(machine.Machine.HasReachedMain);
        machine.Machine.Resume();
        Assert.Equal(1, (await machine.TickAsync()).Tick);
    }

    [ContractFact]
    public async Task A_resume_too_many_does_not_disturb_a_capture()
    {
        await using TestMachine machine = await BootAsync("counter", 2, 64, "--smp", "--busy", "--period-ms", "0", "--rate", "200000", "--arena-mb", "32", "--random");
        using CancellationTokenSource done = new();
        Task resuming = Task.Run(() =>
        {
            while (!done.IsCancellationRequested)
            {
                Assert.Throws<InvalidOperationException>(machine.Machine.Resume);
            }
        });
        for (int round = 0; round < 50; round++)
        {
            (await machine.CaptureAsync()).Dispose();
        }

        await done.CancelAsync();
        await resuming.Guarded();
        await machine.Machine.PauseAsync().AsTask().Guarded();
        machine.Machine.Resume();
    }

    [ContractFact]
    public async Task A_pause_that_is_cancelled_leaves_the_machine_running()
    {
        await using TestMachine machine = await BootAsync("counter", "--period-ms", "0");
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => machine.Machine.PauseAsync(new CancellationToken(canceled: true)).AsTask());
        for (int round = 0; round < 100; round++)
        {
            using CancellationTokenSource source = new();
            Task pause = machine.Machine.PauseAsync(source.Token).AsTask();
            await source.CancelAsync();
            if (await Record.ExceptionAsync(() => pause.Guarded()) is { } error)
            {
                Assert.IsAssignableFrom<OperationCanceledException>(error);
            }
            else
            {
                machine.Machine.Resume();
            }
        }

        Assert.Equal(1, (await machine.TickAsync()).Tick);
    }

    [ContractFact]
    public async Task An_exited_machine_pauses_and_resumes_without_effect()
    {
        await using TestMachine machine = await BootAsync("hello");
        MachineExit exit = await machine.Exited;
        await machine.Machine.PauseAsync().AsTask().Guarded();
        machine.Machine.Resume();
        machine.Machine.RequestStop();
        machine.Machine.KillApp();
        machine.Machine.Kill();
        Assert.Equal(exit, await machine.Exited);
        Assert.Equal(0, await machine.Machine.WriteConsoleAsync("late"u8.ToArray()).Guarded());
        MachineExitedException error = await Assert.ThrowsAsync<MachineExitedException>(() => machine.CaptureAsync());
        Assert.Equal(exit, error.Exit);
    }

    [ContractTheory]
    [InlineData("--busy")]
    [InlineData("--quiet")]
    public async Task A_kill_ends_a_machine_that_runs_or_waits(string mode)
    {
        await using TestMachine machine = await BootAsync("counter", 4, 32, "--smp", "--period-ms", "0", mode);
        machine.Machine.Kill();
        machine.Machine.Kill();
        Assert.Equal(Killed, await machine.Exited);
    }

    [ContractFact]
    public async Task A_kill_ends_a_machine_that_is_paused_or_was_never_started()
    {
        await using TestMachine paused = await BootAsync("counter", 2, 32, "--busy");
        await paused.Machine.PauseAsync().AsTask().Guarded();
        await using TestMachine fresh = await CreateAsync("counter", 2, 32);
        paused.Machine.Kill();
        fresh.Machine.Kill();
        Assert.Equal(Killed, await paused.Exited);
        Assert.Equal(Killed, await fresh.Exited);
    }

    [ContractFact]
    public async Task A_kill_ends_a_capture()
    {
        for (int round = 0; round < 50; round++)
        {
            await using TestMachine machine = await BootAsync("counter", 2, 64, "--busy", "--touch", "--arena-mb", "16", "--rate", "100000", "--period-ms", "0");
            Task<IMachineSnapshot> capture = machine.CaptureAsync();
            Task kill = Task.Run(machine.Machine.Kill);
            Exception? error = await Record.ExceptionAsync(async () => (await capture).Dispose());
            await kill;
            Assert.True(error is null or MachineExitedException, $"round {round}: {error}");
            Assert.Equal(Killed, await machine.Exited);
        }
    }

    [ContractTheory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_machine_that_ends_lets_waiting_console_writers_go(bool dispose)
    {
        await using TestMachine machine = await BootAsync("crash", "ignore-stop");
        byte[] much = new byte[1 << 20];
        Assert.Equal(64 << 10, await machine.Machine.WriteConsoleAsync(much).Guarded());
        Task<int> waiting = machine.Machine.WriteConsoleAsync(much).AsTask();
        Assert.False(waiting.IsCompleted);
        if (dispose)
        {
            await machine.DisposeAsync();
        }
        else
        {
            machine.Machine.Kill();
        }

        Assert.Equal(0, await waiting.Guarded());
        Assert.Equal(Killed, await machine.Exited);
        Assert.Equal(0, await machine.Machine.WriteConsoleAsync(much).Guarded());
    }

    [ContractFact]
    public async Task The_console_makes_writers_wait_and_loses_nothing()
    {
        const int Count = 4000;
        await using TestMachine machine = await BootAsync("counter", "--period-ms", "0");
        await machine.Machine.PauseAsync().AsTask().Guarded();
        Task sending = Task.Run(async () =>
        {
            for (int i = 0; i < Count; i++)
            {
                await machine.SendAsync($"mark {i:d8} of {Count} marks that make the queue overflow");
            }

            await machine.SendAsync("show");
        });
        machine.Machine.Resume();
        await sending.Guarded();
        Assert.Equal($"mark={Count - 1:d8} of {Count} marks that make the queue overflow", await machine.Monitor.ReadLineAsync());
    }

    [ContractFact]
    public async Task A_console_write_can_be_cancelled()
    {
        await using TestMachine machine = await BootAsync("crash", "ignore-stop");
        byte[] much = new byte[1 << 20];
        await machine.Machine.WriteConsoleAsync(much).Guarded();
        using CancellationTokenSource source = new();
        Task<int> waiting = machine.Machine.WriteConsoleAsync(much, source.Token).AsTask();
        await source.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting.Guarded());
    }

    [ContractTheory]
    [InlineData(0, 64, "A machine has 1 to 8 vCPUs, not 0.")]
    [InlineData(9, 64, "A machine has 1 to 8 vCPUs, not 9.")]
    [InlineData(-1, 64, "A machine has 1 to 8 vCPUs, not -1.")]
    [InlineData(1, 1, "A machine has 2 to 65536 MiB of memory, not 1.")]
    [InlineData(1, 0, "A machine has 2 to 65536 MiB of memory, not 0.")]
    [InlineData(1, int.MinValue, "A machine has 2 to 65536 MiB of memory, not -2147483648.")]
    [InlineData(1, 65537, "A machine has 2 to 65536 MiB of memory, not 65537.")]
    public async Task A_machine_of_impossible_size_is_refused(int vcpus, int memoryMb, string message) =>
        Assert.Equal(message, (await Assert.ThrowsAsync<InvalidRequestException>(() => CreateAsync("hello", vcpus, memoryMb))).Message);

    [ContractFact]
    public async Task What_cannot_be_booted_is_a_typed_error()
    {
        Assert.Equal(ImageError.UnknownFormat, await ErrorOfAsync(GuestImage.FromBytes("text", "text"u8.ToArray()), 64));
        Assert.Equal(ImageError.Unreadable, await ErrorOfAsync(GuestImage.FromFile("/nonexistent/image"), 64));
        Assert.Equal(ImageError.Truncated, await ErrorOfAsync(GuestImage.FromBytes("cut", GuestImages.Read("hello").AsMemory(0, 5000)), 64));
        Assert.Equal(ImageError.MemoryTooSmall, await ErrorOfAsync(GuestImage.FromBytes("large", LargeImage()), 16));
        await Assert.ThrowsAsync<InvalidRequestException>(() => CreateAsync("hello", 1, 64, new string('x', 50_000)));
        await Assert.ThrowsAsync<InvalidRequestException>(() => CreateAsync("hello", 1, 64, "a\0b"));

        async Task<ImageError> ErrorOfAsync(GuestImage image, int memoryMb) =>
            (await Assert.ThrowsAsync<ImageException>(() => CreateAsync(Configuration(image, 1, memoryMb)))).Error;
    }

    [ContractFact]
    public async Task A_cancelled_token_stops_making_a_machine()
    {
        CancellationToken cancelled = new(canceled: true);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => Hypervisor.CreateAsync(Configuration(GuestImages.Get("hello"), 1, 64), new RecordingMonitor(), cancelled).AsTask());
        await using TestMachine machine = await BootAsync("counter", "--period-ms", "0");
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => machine.CaptureAsync(cancelled));
        using IMachineSnapshot snapshot = await machine.CaptureAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => Hypervisor.RestoreAsync(snapshot, Guid.NewGuid(), new RecordingMonitor(), cancelled).AsTask());
    }

    [ContractFact]
    public async Task A_monitor_that_throws_ends_its_machine_and_nothing_else()
    {
        await using IVirtualMachine machine = await Hypervisor.CreateAsync(Configuration(GuestImages.Get("hello"), 2, 16), new ThrowingMonitor());
        await machine.StartAsync();
        Assert.IsType<NotSupportedException>(Assert.IsType<MachineExit.Failed>(await machine.Exited.Guarded()).Error);
    }

    [ContractFact]
    public async Task The_smallest_machine_runs()
    {
        // A jump to itself.
        await using TestMachine machine = await CreateAsync(Configuration(GuestImage.FromBytes("loop", ElfBuilder.Program(0xEB, 0xFE).Build()), 1, 2));
        await machine.Machine.StartAsync();
        await machine.Machine.PauseAsync().AsTask().Guarded();
        machine.Machine.Resume();
        machine.Machine.KillApp();
        Assert.Equal(ElfBuilder.Base, Assert.IsType<MachineExit.Crashed>(await machine.Exited).Fault.InstructionPointer);
    }

    private static byte[] LargeImage()
    {
        ElfBuilder builder = ElfBuilder.Program();
        builder.Segments[0].MemorySize = 15 << 20;
        return builder.Build();
    }

    private static byte[] Copy(TestMachine machine) => machine.Memory.Read(0, (int)machine.Memory.Size).ToArray();

    /// <summary>The pending events in the info page change when input is sent.</summary>
    private static void AssertSameBehindTheInfoPage(byte[] before, byte[] after) =>
        Assert.True(before.AsSpan(0xF_1000).SequenceEqual(after.AsSpan(0xF_1000)), "The guest ran while it was paused.");

    private sealed class ThrowingMonitor : IMachineMonitor
    {
        public void OnConsoleOutput(ReadOnlySpan<byte> output) => throw new NotSupportedException();

        public void OnMainReached()
        {
        }

        public void OnTemplateRequested()
        {
        }

        public void OnForkRequested()
        {
        }
    }
}

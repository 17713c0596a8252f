using System.Text;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

/// <summary>What every backend must do.</summary>
public abstract class HypervisorContract : IAsyncLifetime
{
    /// <summary>The stop code of a guest that has shut down cleanly: level 2, shutting down.</summary>
    private const uint CleanStop = 0x8200;

    private static readonly CancellationToken Cancelled = new(canceled: true);

    private IHypervisor? _hypervisor;

    /// <summary>The backend.</summary>
    protected IHypervisor Hypervisor => _hypervisor!;

    /// <summary>Crash kinds.</summary>
    public static TheoryData<string, string, int> Faults => CrashKinds.Faults;

    /// <summary>Makes the backend.</summary>
    protected abstract IHypervisor CreateHypervisor();

    /// <summary>The image of a guest.</summary>
    /// <param name="name"><c>hello</c>, <c>counter</c>, <c>crash</c> or <c>kv</c>.</param>
    protected abstract GuestImage Image(string name);

    /// <inheritdoc/>
    public virtual Task InitializeAsync()
    {
        _hypervisor = CreateHypervisor();
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public virtual Task DisposeAsync() => _hypervisor?.DisposeAsync().Guarded() ?? Task.CompletedTask;

    [ContractFact]
    public void Info_is_plausible()
    {
        Assert.NotEmpty(Hypervisor.Info.Name);
        Assert.InRange(Hypervisor.Info.MaxVcpus, 1, 256);
        Assert.InRange(Hypervisor.Info.MinMemoryMb, 1, 64);
        Assert.True(Hypervisor.Info.MaxMemoryMb >= 64);
    }

    [ContractFact]
    public void An_ability_that_nobody_has_is_null() => Assert.Null(Hypervisor.GetFeature<IComparable>());

    [ContractFact]
    public async Task A_guest_gets_what_it_was_configured_with_and_ends_cleanly()
    {
        RecordingMonitor monitor = new();
        Dictionary<string, string> env = new(StringComparer.Ordinal) { ["COLOUR"] = "blue", ["EMPTY"] = "" };
        await using IVirtualMachine machine = await Hypervisor
            .CreateAsync(Configuration("hello", "one", "", "drei ä") with { Vcpus = 2, Env = env }, monitor)
            .Guarded();
        Assert.False(machine.HasReachedMain);

        await machine.StartAsync().Guarded();
        MachineExit exit = await machine.Exited.Guarded();

        Assert.Equal(new MachineExit.PoweredOff(0, new StopCode(CleanStop)), exit);
        Assert.True(machine.HasReachedMain);
        Assert.Equal(1, monitor.MainCount);
        Assert.Equal(
            ["Hello from a flat guest: 2 vCPU(s), 64 MiB", "arg[0]=test", "arg[1]=one", "arg[2]=", "arg[3]=drei ä"],
            monitor.Lines.Take(5));
        Assert.Equal(["env COLOUR=blue", "env EMPTY="], monitor.Lines.Skip(5).Order(StringComparer.Ordinal));
    }

    [ContractTheory]
    [MemberData(nameof(Faults))]
    public async Task An_exception_becomes_its_stop_code(string kind, string stopCode, int vector)
    {
        MachineExit exit = await RunAsync("crash", kind);

        MachineExit.Crashed crashed = Assert.IsType<MachineExit.Crashed>(exit);
        Assert.Equal(stopCode, crashed.StopCode.ToString());
        Assert.Equal(vector, crashed.Fault.Vector);
        Assert.Equal(vector == 14, crashed.Fault.Address is not null);
    }

    [ContractTheory]
    [InlineData("exit", "7", 7, "0x00008200")]
    [InlineData("return", "-3", -3, "0x00008200")]
    [InlineData("abort", "5", null, "0x00057F01")]
    [InlineData("vanish", null, null, null)]
    [InlineData("no-such-kind", null, 64, "0x00008200")]
    public async Task A_guest_that_powers_off_leaves_what_it_said(string kind, string? argument, int? exitCode, string? stopCode)
    {
        MachineExit exit = await RunAsync("crash", argument is null ? [kind] : [kind, argument]);

        StopCode? expected = stopCode is null ? null : StopCode.Parse(stopCode);
        Assert.Equal(new MachineExit.PoweredOff(exitCode, expected), exit);
    }

    [ContractFact]
    public async Task A_stop_request_reaches_the_guest()
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using (machine)
        {
            await monitor.Main.Guarded();
            machine.RequestStop();

            Assert.Equal(new MachineExit.PoweredOff(0, new StopCode(CleanStop)), await machine.Exited.Guarded());
            Assert.Equal("stopping", monitor.Lines[^1]);
        }
    }

    [ContractTheory]
    [InlineData("loop")]
    [InlineData("ignore-stop")]
    public async Task An_app_that_does_not_listen_can_be_killed(string kind)
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("crash", kind);
        await using (machine)
        {
            await monitor.ReadLineAsync();
            machine.RequestStop();
            machine.KillApp();

            MachineExit.Crashed crashed = Assert.IsType<MachineExit.Crashed>(await machine.Exited.Guarded());
            Assert.Equal(new StopCode(StopCodeReason.Exception, errno: 110, isShuttingDown: true), crashed.StopCode);
        }
    }

    [ContractTheory]
    [InlineData("loop")]
    [InlineData("ignore-stop")]
    public async Task A_machine_can_be_killed_at_any_time(string kind)
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("crash", kind);
        await using (machine)
        {
            await monitor.ReadLineAsync();
            machine.Kill();
            machine.Kill();

            Assert.IsType<MachineExit.Killed>(await machine.Exited.Guarded());
        }
    }

    [ContractFact]
    public async Task Disposing_of_a_machine_ends_it()
    {
        (IVirtualMachine running, RecordingMonitor monitor) = await StartAsync("crash", "loop");
        await monitor.ReadLineAsync();
        IVirtualMachine notStarted = await Hypervisor.CreateAsync(Configuration("hello"), new RecordingMonitor()).Guarded();

        foreach (IVirtualMachine machine in new[] { running, notStarted })
        {
            await machine.DisposeAsync().Guarded();
            Assert.IsType<MachineExit.Killed>(await machine.Exited.Guarded());
            await machine.DisposeAsync().Guarded();
        }
    }

    [ContractFact]
    public async Task What_comes_after_the_end_has_no_effect()
    {
        (IVirtualMachine machine, _) = await StartAsync("hello");
        MachineExit exit = await machine.Exited.Guarded();

        for (int i = 0; i < 2; i++)
        {
            machine.RequestStop();
            machine.KillApp();
            machine.Kill();
            Assert.Same(exit, await machine.Exited.Guarded());
            // Once more when it is disposed of: a stop may be on its way while it ends.
            await machine.DisposeAsync().Guarded();
        }
    }

    [ContractFact]
    public async Task An_ended_machine_takes_no_input_and_no_snapshot_and_pauses_without_effect()
    {
        (IVirtualMachine machine, _) = await StartAsync("hello");
        await using (machine)
        {
            MachineExit exit = await machine.Exited.Guarded();

            Assert.Equal(0, await machine.WriteConsoleAsync("tick\n"u8.ToArray()).Guarded());
            MachineExitedException error = await Assert.ThrowsAsync<MachineExitedException>(() => machine.CaptureAsync().Guarded());
            Assert.Equal(exit, error.Exit);
            await machine.PauseAsync().Guarded();
            machine.Resume();
        }
    }

    [ContractFact]
    public async Task A_machine_starts_once()
    {
        (IVirtualMachine machine, _) = await StartAsync("counter", "--period-ms", "0");
        await using (machine)
        {
            await Assert.ThrowsAsync<InvalidOperationException>(() => machine.StartAsync().Guarded());
        }
    }

    [ContractFact]
    public async Task Pauses_nest_and_only_what_was_paused_resumes()
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using (machine)
        {
            await monitor.Main.Guarded();
            Assert.Throws<InvalidOperationException>(machine.Resume);

            await machine.PauseAsync().Guarded();
            await machine.PauseAsync().Guarded();
            await WriteAsync(machine, "tick\n");
            machine.Resume();
            Assert.Empty(monitor.Output);
            machine.Resume();
            Assert.Equal(1, CounterTick.Parse(await monitor.ReadLineAsync()).Tick);
            Assert.Throws<InvalidOperationException>(machine.Resume);
        }
    }

    [ContractFact]
    public async Task A_paused_machine_can_be_killed()
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("crash", "loop");
        await using (machine)
        {
            await monitor.ReadLineAsync();
            await machine.PauseAsync().Guarded();
            machine.Kill();

            Assert.IsType<MachineExit.Killed>(await machine.Exited.Guarded());
        }
    }

    [ContractFact]
    public async Task Input_arrives_in_order_and_whole()
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using (machine)
        {
            string mark = new('x', 900);
            for (int i = 0; i < 100; i++)
            {
                await WriteAsync(machine, $"mark {mark}{i}\nshow\n");
            }

            for (int i = 0; i < 100; i++)
            {
                Assert.Equal($"mark={mark}{i}", await monitor.ReadLineAsync());
            }
        }
    }

    [ContractFact]
    public async Task A_snapshot_is_taken_of_started_machines_only()
    {
        await using IVirtualMachine machine = await Hypervisor.CreateAsync(Configuration("counter"), new RecordingMonitor()).Guarded();

        await Assert.ThrowsAsync<InvalidOperationException>(() => machine.CaptureAsync().Guarded());
    }

    [ContractFact]
    public async Task A_restored_machine_continues_and_has_its_own_identity()
    {
        (IVirtualMachine source, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using (source)
        {
            CounterTick first = await TickAsync(source, monitor);
            using IMachineSnapshot snapshot = await source.CaptureAsync().Guarded();
            Assert.True(snapshot.Depth >= 1);
            Assert.True(snapshot.StoredBytes >= 0);
            Assert.True(snapshot.Pause >= TimeSpan.Zero);

            (IVirtualMachine clone, RecordingMonitor heard) = await RestoreAsync(snapshot);
            await using (clone)
            {
                Assert.True(clone.HasReachedMain);
                CounterTick cloned = await TickAsync(clone, heard);
                CounterTick second = await TickAsync(source, monitor);

                Assert.Equal(0, heard.MainCount);
                Assert.Equal((first.Nonce, 2), (cloned.Nonce, cloned.Tick));
                Assert.NotEqual(first.Generation, cloned.Generation);
                Assert.Equal(first with { Tick = 2 }, second);
            }
        }
    }

    [ContractFact]
    public async Task Snapshots_build_on_each_other_and_outlive_their_sources()
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        CounterTick first = await TickAsync(machine, monitor);
        for (int generation = 2; generation <= 5; generation++)
        {
            IMachineSnapshot snapshot = await machine.CaptureAsync().Guarded();
            await machine.DisposeAsync().Guarded();
            (machine, monitor) = await RestoreAsync(snapshot);
            // The machine lives on what it needs of it.
            snapshot.Dispose();

            CounterTick tick = await TickAsync(machine, monitor);
            Assert.Equal((first.Nonce, generation), (tick.Nonce, tick.Tick));
        }

        await machine.DisposeAsync().Guarded();
    }

    [ContractFact]
    public async Task One_snapshot_is_restored_many_times_and_nothing_leaks_between_the_machines()
    {
        (IVirtualMachine source, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using (source)
        {
            await WriteAsync(source, "mark source\n");
            CounterTick first = await TickAsync(source, monitor);
            using IMachineSnapshot snapshot = await source.CaptureAsync().Guarded();
            for (int i = 0; i < 4; i++)
            {
                (IVirtualMachine clone, RecordingMonitor heard) = await RestoreAsync(snapshot);
                await using (clone)
                {
                    await WriteAsync(clone, "show\n");
                    Assert.Equal("mark=source", await heard.ReadLineAsync());
                    await WriteAsync(clone, $"mark clone {i}\n");
                    CounterTick tick = await TickAsync(clone, heard);
                    Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick));
                }
            }

            await WriteAsync(source, "show\n");
            Assert.Equal("mark=source", await monitor.ReadLineAsync());
        }
    }

    [ContractFact]
    public async Task A_snapshot_can_be_taken_of_a_busy_guest_and_of_one_that_was_restored_but_never_ran_far()
    {
        (IVirtualMachine source, RecordingMonitor monitor) = await StartAsync("crash", "loop");
        await using (source)
        {
            await monitor.ReadLineAsync();
            using IMachineSnapshot snapshot = await source.CaptureAsync().Guarded();
            (IVirtualMachine clone, _) = await RestoreAsync(snapshot);
            await using (clone)
            {
                using IMachineSnapshot again = await clone.CaptureAsync().Guarded();
                clone.KillApp();
                Assert.IsType<MachineExit.Crashed>(await clone.Exited.Guarded());
                Assert.False(source.Exited.IsCompleted);
            }
        }
    }

    [ContractFact]
    public async Task A_request_to_become_a_template_returns_in_every_clone_and_never_in_the_source()
    {
        (IVirtualMachine source, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using (source)
        {
            CounterTick first = await TickAsync(source, monitor);
            using IMachineSnapshot snapshot = await CaptureTemplateAsync(source, monitor);
            List<string> generations = [first.Generation];
            for (int i = 0; i < 4; i++)
            {
                (IVirtualMachine clone, RecordingMonitor heard) = await RestoreAsync(snapshot);
                await using (clone)
                {
                    generations.Add(await ReadClonedAsync(heard));
                    CounterTick tick = await TickAsync(clone, heard);
                    Assert.Equal((first.Nonce, 2, generations[^1]), (tick.Nonce, tick.Tick, tick.Generation));
                }
            }

            Assert.Equal(5, generations.Distinct(StringComparer.Ordinal).Count());
            // In the source the call has not returned: it takes no input.
            await WriteAsync(source, "tick\n");
            using IMachineSnapshot later = await source.CaptureAsync().Guarded();
            Assert.Single(monitor.Lines);
            Assert.False(source.Exited.IsCompleted);
        }
    }

    [ContractFact]
    public async Task Templates_nest()
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        CounterTick first = await TickAsync(machine, monitor);
        for (int depth = 1; depth <= 5; depth++)
        {
            using IMachineSnapshot snapshot = await CaptureTemplateAsync(machine, monitor);
            await machine.DisposeAsync().Guarded();
            (machine, monitor) = await RestoreAsync(snapshot);
            string generation = await ReadClonedAsync(monitor);
            CounterTick tick = await TickAsync(machine, monitor);
            Assert.Equal((first.Nonce, depth + 1, generation), (tick.Nonce, tick.Tick, tick.Generation));
        }

        await machine.DisposeAsync().Guarded();
    }

    [ContractTheory]
    [InlineData("template", GuestRequestRefusal.Busy, "template error=16")]
    [InlineData("template", GuestRequestRefusal.TryAgain, "template error=11")]
    [InlineData("fork", GuestRequestRefusal.Busy, "fork error=16")]
    [InlineData("fork", GuestRequestRefusal.TryAgain, "fork error=11")]
    public async Task A_refused_request_returns_an_error_and_the_guest_goes_on(string request, GuestRequestRefusal refusal, string line)
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using (machine)
        {
            CounterTick first = await TickAsync(machine, monitor);
            Assert.Throws<InvalidOperationException>(() => machine.RefuseRequest(refusal));
            for (int i = 0; i < 2; i++)
            {
                await WriteAsync(machine, $"{request}\n");
                Assert.Equal(request, await monitor.ReadRequestAsync());
                machine.RefuseRequest(refusal);
                Assert.Equal(line, await monitor.ReadLineAsync());
                Assert.Throws<InvalidOperationException>(() => machine.RefuseRequest(refusal));
            }

            Assert.Equal(first with { Tick = 2 }, await TickAsync(machine, monitor));
        }
    }

    [ContractFact]
    public async Task A_fork_returns_on_both_sides_with_the_uuid_of_the_child()
    {
        (IVirtualMachine parent, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using (parent)
        {
            CounterTick first = await TickAsync(parent, monitor);
            Assert.Throws<InvalidOperationException>(() => parent.CompleteFork(Guid.NewGuid()));
            await WriteAsync(parent, "fork\n");
            Assert.Equal("fork", await monitor.ReadRequestAsync());
            using IMachineSnapshot snapshot = await parent.CaptureAsync().Guarded();
            RecordingMonitor heard = new();
            Guid uuid = Guid.NewGuid();
            await using IVirtualMachine child = await Hypervisor.RestoreAsync(snapshot, uuid, heard).Guarded();
            await child.StartAsync().Guarded();
            string line = await heard.ReadLineAsync();
            Assert.StartsWith($"fork child uuid={uuid} gen=", line, StringComparison.Ordinal);
            parent.CompleteFork(uuid);
            Assert.Equal($"fork parent child={uuid}", await monitor.ReadLineAsync());

            CounterTick forked = await TickAsync(child, heard);
            Assert.Equal((first.Nonce, 2), (forked.Nonce, forked.Tick));
            Assert.EndsWith($" gen={forked.Generation}", line, StringComparison.Ordinal);
            Assert.NotEqual(first.Generation, forked.Generation);
            Assert.Equal(first with { Tick = 2 }, await TickAsync(parent, monitor));
        }
    }

    [ContractTheory]
    [InlineData("template")]
    [InlineData("fork")]
    public async Task A_guest_that_waits_for_an_answer_can_be_paused_and_ended(string request)
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        (IVirtualMachine hopeless, RecordingMonitor heard) = await StartAsync("counter", "--period-ms", "0");
        await using (machine)
        await using (hopeless)
        {
            await WriteAsync(machine, $"{request}\n");
            await WriteAsync(hopeless, $"{request}\n");
            await monitor.ReadRequestAsync();
            await heard.ReadRequestAsync();
            hopeless.RequestStop();
            hopeless.KillApp();
            Assert.IsType<MachineExit.Crashed>(await hopeless.Exited.Guarded());
            hopeless.RefuseRequest(GuestRequestRefusal.Busy);
            hopeless.CompleteFork(Guid.NewGuid());

            await machine.PauseAsync().Guarded();
            machine.RefuseRequest(GuestRequestRefusal.Busy);
            Assert.Empty(monitor.Lines);
            machine.Resume();
            Assert.Equal($"{request} error=16", await monitor.ReadLineAsync());
        }
    }

    [ContractFact]
    public async Task A_snapshot_of_a_paused_machine_leaves_it_paused_and_its_clone_runs()
    {
        (IVirtualMachine source, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using (source)
        {
            CounterTick first = await TickAsync(source, monitor);
            await source.PauseAsync().Guarded();
            using IMachineSnapshot snapshot = await source.CaptureAsync().Guarded();
            await WriteAsync(source, "tick\n");
            (IVirtualMachine clone, RecordingMonitor heard) = await RestoreAsync(snapshot);
            await using (clone)
            {
                CounterTick tick = await TickAsync(clone, heard);
                Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick));
            }

            Assert.Single(monitor.Lines);
            source.Resume();
            Assert.Equal(first with { Tick = 2 }, CounterTick.Parse(await monitor.ReadLineAsync()));
        }
    }

    [ContractFact]
    public async Task A_foreign_snapshot_is_refused()
    {
        using ForeignSnapshot snapshot = new();

        await Assert.ThrowsAsync<ArgumentException>(
            () => Hypervisor.RestoreAsync(snapshot, Guid.NewGuid(), new RecordingMonitor()).Guarded());
    }

    [ContractFact]
    public async Task An_image_of_no_known_format_is_refused()
    {
        MachineConfiguration configuration = Configuration("hello") with { Image = GuestImage.FromBytes("garbage", new byte[4096]) };

        ImageException error = await Assert.ThrowsAsync<ImageException>(
            () => Hypervisor.CreateAsync(configuration, new RecordingMonitor()).Guarded());

        Assert.Equal(ImageError.UnknownFormat, error.Error);
        Assert.Equal("garbage", error.Image);
    }

    [ContractFact]
    public async Task A_machine_beyond_what_the_backend_can_do_is_refused()
    {
        MachineConfiguration hello = Configuration("hello");
        MachineConfiguration[] refused =
        [
            hello with { Vcpus = 0 },
            hello with { Vcpus = Hypervisor.Info.MaxVcpus + 1 },
            hello with { MemoryMb = 0 },
            hello with { MemoryMb = Hypervisor.Info.MaxMemoryMb + 1 },
            hello with { Args = [new string('x', 45 << 10)] },
        ];

        foreach (MachineConfiguration configuration in refused)
        {
            await Assert.ThrowsAsync<InvalidRequestException>(
                () => Hypervisor.CreateAsync(configuration, new RecordingMonitor()).Guarded());
        }
    }

    [ContractFact]
    public async Task A_cancelled_token_is_heeded_everywhere()
    {
        (IVirtualMachine machine, RecordingMonitor monitor) = await StartAsync("counter", "--period-ms", "0");
        await using IVirtualMachine notStarted = await Hypervisor.CreateAsync(Configuration("hello"), new RecordingMonitor()).Guarded();
        await using (machine)
        {
            await TickAsync(machine, monitor);
            using IMachineSnapshot snapshot = await machine.CaptureAsync().Guarded();
            RecordingMonitor nothing = new();

            await AssertCancelledAsync(() => Hypervisor.CreateAsync(Configuration("hello"), nothing, Cancelled).Guarded());
            await AssertCancelledAsync(() => Hypervisor.RestoreAsync(snapshot, Guid.NewGuid(), nothing, Cancelled).Guarded());
            await AssertCancelledAsync(() => machine.PauseAsync(Cancelled).Guarded());
            await AssertCancelledAsync(() => machine.CaptureAsync(Cancelled).Guarded());
            await AssertCancelledAsync(() => machine.WriteConsoleAsync(new byte[1], Cancelled).Guarded());
            await AssertCancelledAsync(() => notStarted.StartAsync(Cancelled).Guarded());

            // None of it has left anything behind.
            Assert.Throws<InvalidOperationException>(machine.Resume);
            Assert.Equal(2, (await TickAsync(machine, monitor)).Tick);
            using IMachineSnapshot another = await machine.CaptureAsync().Guarded();
            await notStarted.StartAsync().Guarded();
            Assert.IsType<MachineExit.PoweredOff>(await notStarted.Exited.Guarded());
        }
    }

    [ContractFact]
    public async Task Machines_run_side_by_side()
    {
        MachineExit[] exits = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => RunAsync("crash", "exit", $"{i}"))).Guarded();

        Assert.Equal(Enumerable.Range(0, 8), exits.Select(exit => ((MachineExit.PoweredOff)exit).ExitCode!.Value));
    }

    /// <summary>A machine with 64 MiB and one vCPU.</summary>
    /// <param name="image">The name of the guest.</param>
    /// <param name="args">Its arguments.</param>
    protected MachineConfiguration Configuration(string image, params string[] args) => new()
    {
        Uuid = Guid.NewGuid(),
        Name = "test",
        Image = Image(image),
        Vcpus = 1,
        MemoryMb = 64,
        Args = args,
    };

    private static async Task AssertCancelledAsync(Func<Task> action) =>
        await Assert.ThrowsAnyAsync<OperationCanceledException>(action);

    private static async Task WriteAsync(IVirtualMachine machine, string text)
    {
        ReadOnlyMemory<byte> input = Encoding.UTF8.GetBytes(text);
        while (!input.IsEmpty)
        {
            int taken = await machine.WriteConsoleAsync(input).Guarded();
            Assert.InRange(taken, 1, input.Length);
            input = input[taken..];
        }
    }

    private static async Task<CounterTick> TickAsync(IVirtualMachine machine, RecordingMonitor monitor)
    {
        await WriteAsync(machine, "tick\n");
        return CounterTick.Parse(await monitor.ReadLineAsync());
    }

    private static async Task<IMachineSnapshot> CaptureTemplateAsync(IVirtualMachine machine, RecordingMonitor monitor)
    {
        await WriteAsync(machine, "template\n");
        Assert.Equal("template", await monitor.ReadRequestAsync());
        return await machine.CaptureAsync().Guarded();
    }

    private static async Task<string> ReadClonedAsync(RecordingMonitor monitor)
    {
        const string Prefix = "cloned gen=";
        string line = await monitor.ReadLineAsync();
        Assert.StartsWith(Prefix, line, StringComparison.Ordinal);
        return line[Prefix.Length..];
    }

    private async Task<MachineExit> RunAsync(string image, params string[] args)
    {
        (IVirtualMachine machine, _) = await StartAsync(image, args);
        await using (machine)
        {
            return await machine.Exited.Guarded();
        }
    }

    private async Task<(IVirtualMachine Machine, RecordingMonitor Monitor)> StartAsync(string image, params string[] args)
    {
        RecordingMonitor monitor = new();
        IVirtualMachine machine = await Hypervisor.CreateAsync(Configuration(image, args), monitor).Guarded();
        await machine.StartAsync().Guarded();
        return (machine, monitor);
    }

    private async Task<(IVirtualMachine Machine, RecordingMonitor Monitor)> RestoreAsync(IMachineSnapshot snapshot)
    {
        RecordingMonitor monitor = new();
        IVirtualMachine machine = await Hypervisor.RestoreAsync(snapshot, Guid.NewGuid(), monitor).Guarded();
        await machine.StartAsync().Guarded();
        return (machine, monitor);
    }

    private sealed class ForeignSnapshot : IMachineSnapshot
    {
        public long StoredBytes => 0;

        public int Depth => 1;

        public TimeSpan Pause => TimeSpan.Zero;

        public TimeSpan Throttled => TimeSpan.Zero;

        public void Dispose()
        {
        }
    }
}

using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    /// <summary>Crash kinds.</summary>
    public static TheoryData<string, string, int> Faults => CrashKinds.Faults;

    [ContractFact]
    public async Task An_instance_runs_its_image_and_tells_all_about_it()
    {
        CreateInstanceRequest request = Request("hello", "one") with
        {
            Name = "first",
            Vcpus = 1,
            Env = new Dictionary<string, string>(StringComparer.Ordinal) { ["A"] = "b" },
            WaitTimeout = Timeout.InfiniteTimeSpan,
        };
        Instance created = await Instances.CreateAsync(request).Guarded();

        Assert.Equal(InstanceState.Running, created.State);
        Assert.Null(created.StopReason);
        Assert.Equal(("first", 1, 64, 1, 0), (created.Name, created.Vcpus, created.MemoryMb, created.StartCount, created.RestartCount));
        Assert.Equal(Image("hello").Name, created.Image);
        Assert.Equal(["one"], created.Args);
        Assert.Equal("b", created.Env["A"]);
        Assert.Equal(7, created.Uuid.Version);
        Assert.Null(created.Origin);
        Assert.NotNull(created.BootTime);
        Assert.Equal(0, created.BootTime.Value.Ticks % TimeSpan.TicksPerMicrosecond);

        Instance stopped = await Instances.WaitAsync("first", InstanceState.Stopped).Guarded();
        Assert.Equal(StopReason.App | StopReason.Kernel, stopped.StopReason);
        Assert.Equal((0, CleanStop), (stopped.ExitCode, stopped.StopCode));
        Assert.Null(stopped.Fault);
        Assert.NotNull(stopped.StartedAt);
        Assert.True(stopped.StoppedAt >= stopped.StartedAt && stopped.StartedAt >= stopped.CreatedAt);
        Assert.Equal(
            "Hello from a flat guest: 1 vCPU(s), 64 MiB\narg[0]=first\narg[1]=one\nenv A=b\n",
            Instances.ReadLog("first").Text);
        Assert.Equal(stopped, Instances.Get(stopped.Uuid));
        Assert.Equal([stopped], Instances.List());
    }

    [ContractFact]
    public async Task Stop_reason_0_a_guest_that_vanishes()
    {
        Instance stopped = await RunAsync("crash", "vanish");

        Assert.Equal(StopReason.None, stopped.StopReason);
        Assert.Null(stopped.ExitCode);
        Assert.Null(stopped.StopCode);
    }

    [ContractTheory]
    [MemberData(nameof(Faults))]
    public async Task Stop_reason_1_a_guest_that_crashes(string kind, string stopCode, int vector)
    {
        Instance stopped = await RunAsync("crash", kind);

        Assert.Equal(1, (int)stopped.StopReason!.Value);
        Assert.Equal(stopCode, stopped.StopCode.ToString());
        Assert.Null(stopped.ExitCode);
        Assert.Equal(vector, stopped.Fault!.Vector);
        Assert.Equal($"crashing: {kind}\n", Instances.ReadLog(stopped.Uuid).Text);
    }

    [ContractTheory]
    [InlineData("exit", 0)]
    [InlineData("return", 42)]
    public async Task Stop_reason_3_an_app_that_exits(string kind, int code)
    {
        Instance stopped = await RunAsync("crash", kind, $"{code}");

        Assert.Equal("---AK", stopped.StopReason!.Value.ToMask());
        Assert.Equal((code, CleanStop), (stopped.ExitCode, stopped.StopCode));
    }

    [ContractFact]
    public async Task Stop_reason_7_the_platform_stops_everything()
    {
        Instance instance = await CreateCounterAsync();

        await Platform.StopAllAsync().Guarded();

        Instance stopped = Instances.Get(instance.Uuid);
        Assert.Equal(InstanceState.Stopped, stopped.State);
        Assert.Equal("--PAK", stopped.StopReason!.Value.ToMask());
        Assert.Equal((0, CleanStop), (stopped.ExitCode, stopped.StopCode));
    }

    [ContractFact]
    public async Task Stop_reason_13_an_app_that_crashes_when_it_is_asked_to_stop()
    {
        Instance instance = await CreateCrashAsync("crash-on-stop");

        Instance stopped = await Instances.StopAsync(instance.Uuid).Guarded();

        Assert.Equal("-UP-K", stopped.StopReason!.Value.ToMask());
        Assert.Equal("0x00007F03", stopped.StopCode.ToString());
        Assert.Null(stopped.ExitCode);
    }

    [ContractFact]
    public async Task Stop_reason_15_a_regular_stop_by_the_user()
    {
        Instance instance = await CreateCrashAsync("exit-on-stop", "5");

        Instance stopped = await Instances.StopAsync(instance.Uuid).Guarded();

        Assert.Equal("-UPAK", stopped.StopReason!.Value.ToMask());
        Assert.Equal((5, CleanStop), (stopped.ExitCode, stopped.StopCode));
    }

    [ContractTheory]
    [InlineData("loop")]
    [InlineData("ignore-stop")]
    public async Task Stop_reason_28_a_forced_stop_by_the_user(string kind)
    {
        Instance instance = await CreateCrashAsync(kind);

        Instance stopped = await Instances.StopAsync(instance.Uuid, StopRequest.Forced).Guarded();

        Assert.Equal("FUP--", stopped.StopReason!.Value.ToMask());
        Assert.Null(stopped.ExitCode);
        Assert.Null(stopped.StopCode);
    }

    [ContractFact]
    public async Task Stop_reason_20_the_platform_has_no_time_left()
    {
        Instance instance = await CreateCrashAsync("ignore-stop");

        await Platform.StopAllAsync(Cancelled).Guarded();

        Assert.Equal("F-P--", Instances.Get(instance.Uuid).StopReason!.Value.ToMask());
    }

    [ContractFact]
    public async Task An_instance_starts_again_with_the_same_log_and_a_fresh_guest()
    {
        Instance instance = await CreateCounterAsync();
        await using ConsoleSession console = Attach(instance.Uuid);
        CounterTick first = await console.TickAsync();
        await Instances.StopAsync(instance.Uuid).Guarded();

        Instance started = await Instances.StartAsync(instance.Uuid).Guarded();
        await Instances.WaitAsync(instance.Uuid, InstanceState.Running).Guarded();

        Assert.Contains(started.State, new[] { InstanceState.Starting, InstanceState.Running });
        Assert.Equal(2, started.StartCount);
        Assert.Null(started.StopReason);
        CounterTick second = await console.TickAsync();
        Assert.Equal(1, second.Tick);
        Assert.NotEqual(first.Nonce, second.Nonce);
        string log = Instances.ReadLog(instance.Uuid).Text;
        Assert.Contains(first.Nonce, log, StringComparison.Ordinal);
        Assert.Contains(second.Nonce, log, StringComparison.Ordinal);
    }

    [ContractFact]
    public async Task Starting_a_started_instance_is_an_error()
    {
        Instance instance = await CreateCounterAsync("busy");

        WrongStateException error = await FailsAsync<WrongStateException>(
            "Cannot start instance 'busy' in state 'running'",
            () => Instances.StartAsync(instance.Uuid).Guarded());

        Assert.Equal(InstanceState.Running, error.State);
        Assert.Equal(InstanceState.Running, Instances.Get("busy").State);
    }

    [ContractFact]
    public async Task Stopping_a_stopped_instance_has_no_effect()
    {
        Instance stopped = await RunAsync("hello");

        Assert.Equal(stopped, await Instances.StopAsync(stopped.Uuid).Guarded());
        Assert.Equal(stopped, await Instances.StopAsync(stopped.Uuid, StopRequest.Forced).Guarded());
    }

    [ContractFact]
    public async Task An_instance_that_is_not_started_waits_for_its_start()
    {
        Instance instance = await Instances.CreateAsync(Request("hello") with { Autostart = false }).Guarded();
        Assert.Equal(InstanceState.Stopped, instance.State);
        Assert.Equal(0, instance.StartCount);
        Assert.Null(instance.StopReason);
        Assert.Null(instance.StartedAt);

        Task<Instance> running = Instances.WaitAsync(instance.Uuid, InstanceState.Running);
        await Instances.StartAsync(instance.Uuid).Guarded();

        Assert.Equal(InstanceState.Running, (await running.Guarded()).State);
        Assert.Equal(StopReason.App | StopReason.Kernel, (await Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded()).StopReason);
    }

    [ContractFact]
    public async Task Deleting_ends_the_instance_its_waits_and_its_console_and_frees_its_name()
    {
        Instance instance = await CreateCounterAsync("gone");
        ConsoleSession console = Attach("gone");
        await using (console)
        {
            Task<Instance> wait = Instances.WaitAsync("gone", InstanceState.Stopped);

            Instance before = await Instances.DeleteAsync("gone").Guarded();

            Assert.Equal(InstanceState.Running, before.State);
            await Assert.ThrowsAsync<ResourceNotFoundException>(() => wait.Guarded());
            Assert.Null(await console.ReadLineAsync());
            Assert.Throws<ResourceNotFoundException>(() => Instances.Get("gone"));
            Assert.Throws<ResourceNotFoundException>(() => Instances.Get(instance.Uuid));
            Assert.Empty(Instances.List());
            Instance successor = await CreateCounterAsync("gone");
            Assert.NotEqual(instance.Uuid, successor.Uuid);
        }
    }

    [ContractFact]
    public async Task Instances_are_listed_oldest_first_and_found_by_name_and_uuid()
    {
        List<Guid> created = [];
        for (int i = 0; i < 5; i++)
        {
            created.Add((await Instances.CreateAsync(Request("hello") with { Autostart = false }).Guarded()).Uuid);
        }

        Assert.Equal(created, Instances.List().Select(instance => instance.Uuid));
        Assert.All(Instances.List(), instance => Assert.Equal(instance, Instances.Get(instance.Name)));
        Assert.All(Instances.List(), instance => Assert.Equal(instance, Instances.Get(instance.Uuid.ToString())));
        Assert.All(Instances.List(), instance => AssertGeneratedFrom("hello", instance.Name));
    }

    [ContractFact]
    public async Task Waiting_ends_in_time_with_the_instance_as_it_is()
    {
        Instance instance = await CreateCounterAsync("slow");

        OperationTimedOutException error = await Assert.ThrowsAsync<OperationTimedOutException>(
            () => Instances.WaitAsync("slow", InstanceState.Stopped, TimeSpan.Zero).Guarded());

        Assert.Equal("Operation timed out: instance 'slow' is in state 'running', not 'stopped'", error.Message);
        Assert.Equal(instance.Uuid, error.Instance.Uuid);
        Assert.True(error.IsTransient);
        Assert.Equal(InstanceState.Running, (await Instances.WaitAsync("slow", InstanceState.Running, TimeSpan.Zero).Guarded()).State);
    }

    [ContractFact]
    public async Task A_state_that_was_passed_since_the_last_start_ends_a_wait_at_once()
    {
        Instance created = await Instances.CreateAsync(Request("hello") with { Name = "short", Autostart = false }).Guarded();
        Assert.Equal(InstanceState.Stopped, (await Instances.WaitAsync("short", InstanceState.Stopped, TimeSpan.Zero).Guarded()).State);
        await Assert.ThrowsAsync<OperationTimedOutException>(() => Instances.WaitAsync("short", InstanceState.Running, TimeSpan.Zero).Guarded());

        // It has run and stopped before anybody asks.
        await Instances.StartAsync(created.Uuid).Guarded();
        Instance stopped = await Instances.WaitAsync("short", InstanceState.Stopped).Guarded();
        Assert.Equal(stopped, await Instances.WaitAsync("short", InstanceState.Running, TimeSpan.Zero).Guarded());
        Assert.Equal(stopped, await Instances.WaitAsync("short", InstanceState.Starting, TimeSpan.Zero).Guarded());
        Assert.Equal((InstanceState.Stopped, 1), (stopped.State, stopped.StartCount));

        // What it never was is still to come.
        await Assert.ThrowsAsync<OperationTimedOutException>(() => Instances.WaitAsync("short", InstanceState.Draining, TimeSpan.Zero).Guarded());
        await Assert.ThrowsAsync<OperationTimedOutException>(() => Instances.WaitAsync("short", InstanceState.Stopping, TimeSpan.Zero).Guarded());
    }

    [ContractFact]
    public async Task A_wait_after_a_start_does_not_see_the_run_before()
    {
        await CreateCounterAsync("again");
        for (int starts = 1; starts < 6; starts++)
        {
            await Instances.StopAsync("again", new StopRequest { Force = starts % 2 == 0 }).Guarded();
            Assert.Equal(starts, (await Instances.WaitAsync("again", InstanceState.Running, TimeSpan.Zero).Guarded()).StartCount);
            await Instances.StartAsync("again").Guarded();

            await Assert.ThrowsAsync<OperationTimedOutException>(() => Instances.WaitAsync("again", InstanceState.Stopped, TimeSpan.Zero).Guarded());
            Instance running = await Instances.WaitAsync("again", InstanceState.Running).Guarded();
            Assert.Equal((InstanceState.Running, starts + 1), (running.State, running.StartCount));
        }
    }

    [ContractFact]
    public async Task A_wait_of_0_is_none_for_whatever_an_instance_is_made_of()
    {
        await CreateCounterAsync("source");
        CreateCheckpointRequest checkpoint = new() { From = "source", Name = "chk", WaitTimeout = TimeSpan.Zero };
        Assert.Contains((await Checkpoints.CreateAsync(checkpoint).Guarded()).State, new[] { CheckpointState.Starting, CheckpointState.Ready });
        await Checkpoints.WaitAsync("chk").Guarded();
        CreateInstanceRequest request = new() { WaitTimeout = TimeSpan.Zero };

        Instance branch = await Instances.CreateAsync(request with { BranchFrom = "source" }).Guarded();
        Instance load = await Instances.CreateAsync(request with { Checkpoint = "chk" }).Guarded();
        await Templates.ConvertAsync("source").Guarded();
        Instance clone = await Instances.CreateAsync(request with { Template = "source" }).Guarded();
        Instance created = await Instances.CreateAsync(Request("counter", "--period-ms", "0") with { WaitTimeout = TimeSpan.Zero }).Guarded();

        foreach (Instance instance in new[] { branch, load, clone, created })
        {
            Assert.Contains(instance.State, new[] { InstanceState.Starting, InstanceState.Running });
            Assert.Equal(InstanceState.Running, (await Instances.WaitAsync(instance.Uuid, InstanceState.Running).Guarded()).State);
        }
    }

    [ContractFact]
    public async Task A_cancelled_wait_ends_and_a_cancelled_stop_goes_on()
    {
        Instance instance = await CreateCrashAsync("ignore-stop");
        using CancellationTokenSource cancellation = new();
        Task wait = Instances.WaitAsync(instance.Uuid, InstanceState.Stopped, cancellationToken: cancellation.Token);
        Task stop = Instances.StopAsync(
            instance.Uuid,
            new StopRequest { GracePeriod = Timeout.InfiniteTimeSpan },
            cancellation.Token);

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => wait.Guarded());
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => stop.Guarded());
        Instance stopping = Instances.Get(instance.Uuid);
        Assert.Equal(InstanceState.Stopping, stopping.State);
        Assert.Equal(StopReason.User | StopReason.Platform, stopping.StopReason);
        Assert.Equal("FUP--", (await Instances.StopAsync(instance.Uuid, StopRequest.Forced).Guarded()).StopReason!.Value.ToMask());
    }

    [ContractFact]
    public async Task Input_waits_while_the_instance_is_stopped_and_every_console_sees_the_output()
    {
        Instance instance = await Instances.CreateAsync(Request("counter", "--period-ms", "0") with { Autostart = false }).Guarded();
        await using ConsoleSession one = Attach(instance.Uuid);
        await using ConsoleSession two = Attach(instance.Uuid);
        await one.WriteLineAsync("mark early");
        await one.WriteLineAsync("show");

        await Instances.StartAsync(instance.Uuid).Guarded();

        Assert.Equal("mark=early", await one.ReadLineAsync());
        Assert.Equal("mark=early", await two.ReadLineAsync());
        await two.WriteLineAsync("show");
        Assert.Equal("mark=early", await one.ReadLineAsync());
        await using ConsoleSession late = Attach(instance.Uuid);
        await using ConsoleSession all = Attach(instance.Uuid, fromStart: true);
        await late.WriteLineAsync("tick");
        Assert.StartsWith("nonce=", await late.ReadLineAsync(), StringComparison.Ordinal);
        Assert.Equal("mark=early", await all.ReadLineAsync());
    }

    [ContractFact]
    public async Task A_log_is_read_by_range()
    {
        Instance instance = await RunAsync("crash", "exit", "0");
        const string Log = "crashing: exit\n";

        Assert.Equal(Log, Instances.ReadLog(instance.Uuid).Text);
        Assert.Equal("exit\n", Instances.ReadLog(instance.Uuid, new LogRange(-5)).Text);
        Assert.Equal("crash", Instances.ReadLog(instance.Uuid, new LogRange(0, 5)).Text);
        LogOutput middle = Instances.ReadLog(instance.Uuid, new LogRange(10, 2));
        Assert.Equal(("ex", 10, 0, Log.Length), (middle.Text, middle.Start, middle.AvailableStart, middle.AvailableEnd));
        Assert.Equal((Log, 0), (Instances.ReadLog(instance.Uuid, new LogRange(-1000)).Text, Instances.ReadLog(instance.Uuid, new LogRange(1000)).Output.Length));
        Assert.Throws<InvalidRequestException>(() => Instances.ReadLog(instance.Uuid, new LogRange(0, -1)));
    }
}

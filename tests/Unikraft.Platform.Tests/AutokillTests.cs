using Unikraft.Platform.Contracts;

namespace Unikraft.Platform.Tests;

public sealed class AutokillTests
{
    private const int Autokilled = 1003;

    private static readonly TimeSpan Tick = TimeSpan.FromMilliseconds(1);
    private static readonly TimeSpan Hour = TimeSpan.FromHours(1);
    private static readonly TimeSpan Latency = TimeSpan.FromSeconds(3);
    private static readonly AutokillPolicy AfterAnHour = new(Hour);

    [Fact]
    public async Task A_checkpoint_expires_when_nothing_has_loaded_it_since_it_was_ready()
    {
        await using TestPlatform test = new(options => options.CaptureLatency = Latency);
        await CreateSourceAsync(test);
        await test.Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk", Autokill = new AutokillPolicy(Latency / 2) })
            .Guarded();
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        // The time in which it was starting does not count.
        test.Time.Advance(Latency);
        Assert.Equal(CheckpointState.Ready, (await test.Checkpoints.WaitAsync("chk").Guarded()).State);
        test.Time.Advance((Latency / 2) - Tick);
        Assert.Single(test.Checkpoints.List());
        test.Time.Advance(Latency);

        Assert.Empty(test.Checkpoints.List());
        Assert.True(test.HasLogged(Autokilled));
        ResourceNotFoundException error = await Assert.ThrowsAsync<ResourceNotFoundException>(() => LoadAsync(test));
        Assert.Equal("No checkpoint with name 'chk'", error.Message);
        // It stays in the histories, as a deleted one does, and its name is free.
        Assert.Equal("chk", Assert.Single(test.Instances.GetHistory("source")).Name);
        Assert.Equal(CheckpointState.Starting, (await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk" }).Guarded()).State);
    }

    [Fact]
    public async Task A_load_resets_the_time_of_a_checkpoint_and_a_failed_one_does_not()
    {
        Exception? failure = null;
        await using TestPlatform test = new(options => options.RestoreFailure = _ => failure);
        await CreateCheckpointAsync(test);

        test.Time.Advance(Hour - Tick);
        await LoadAsync(test);
        test.Time.Advance(Hour - Tick);
        Assert.Single(test.Checkpoints.List());
        failure = new HypervisorException("no");
        await Assert.ThrowsAsync<HypervisorException>(() => LoadAsync(test));
        test.Time.Advance(Tick);

        Assert.Empty(test.Checkpoints.List());
        Assert.Equal(2, test.Instances.List().Count);
    }

    [Fact]
    public async Task A_load_that_is_cancelled_while_it_waits_for_running_is_none()
    {
        await using TestPlatform test = new(options => options.Guests["slow"] = static () => new SlowBootGuest());
        await test.Instances.CreateAsync(TestPlatform.Request("slow") with { Name = "source", Autostart = false }).Guarded();
        await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { Name = "chk", From = "source", Autokill = new AutokillPolicy(Hour) }).Guarded();
        test.Time.Advance(Hour - Tick);
        using CancellationTokenSource cancellation = new();
        Task<Instance> load = test.Instances.CreateAsync(
            new CreateInstanceRequest { Name = "load", Checkpoint = "chk", WaitTimeout = TimeSpan.FromSeconds(30) },
            cancellation.Token);
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(30)).Guarded();
        // It can be found, and is counted, as long as nobody has cancelled it.
        Assert.Equal((InstanceState.Starting, 1), (test.Instances.Get("load").State, test.Checkpoints.Get("chk").LoadCount));

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => load.Guarded());
        Assert.Equal("source", Assert.Single(test.Instances.List()).Name);
        Assert.Equal(0, test.Checkpoints.Get("chk").LoadCount);
        test.Time.Advance(Tick);
        Assert.Empty(test.Checkpoints.List());
    }

    [Fact]
    public async Task A_load_under_way_is_not_harmed()
    {
        await using TestPlatform test = new(options => options.RestoreLatency = Latency);
        await CreateCheckpointAsync(test);
        test.Time.Advance(Hour - Tick);
        Task<Instance> load = LoadAsync(test);
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        test.Time.Advance(Latency);

        Assert.Equal("chk", (await load).Origin?.Name);
        Assert.Equal(1, test.Checkpoints.Get("chk").LoadCount);
        test.Time.Advance(Hour - Tick);
        Assert.Single(test.Checkpoints.List());
        test.Time.Advance(Tick);
        Assert.Empty(test.Checkpoints.List());
    }

    [Fact]
    public async Task A_load_that_fails_when_the_time_is_up_is_the_last()
    {
        await using TestPlatform test = new(options =>
        {
            options.RestoreLatency = Latency;
            options.RestoreFailure = _ => new HypervisorException("no");
        });
        await CreateCheckpointAsync(test);
        test.Time.Advance(Hour - Tick);
        Task<Instance> load = LoadAsync(test);
        await test.Time.WaitForTimerAsync(Latency).Guarded();
        test.Time.Advance(Latency);
        await Assert.ThrowsAsync<HypervisorException>(() => load);

        test.Time.Advance(TimeSpan.Zero);

        Assert.Empty(test.Checkpoints.List());
    }

    [Fact]
    public async Task A_locked_checkpoint_is_passed_over_until_the_lock_is_removed()
    {
        await using TestPlatform test = new();
        await CreateCheckpointAsync(test);
        await test.Checkpoints.PatchAsync("chk", [new PatchOperation.SetDeleteLock(true)]).Guarded();
        test.Time.Advance(Hour * 3);
        Assert.Single(test.Checkpoints.List());

        await test.Checkpoints.PatchAsync("chk", [new PatchOperation.SetDeleteLock(false)]).Guarded();
        test.Time.Advance(TimeSpan.Zero);

        Assert.Empty(test.Checkpoints.List());
    }

    [Fact]
    public async Task A_policy_that_is_patched_counts_from_the_last_load_as_well()
    {
        await using TestPlatform test = new();
        await CreateCheckpointAsync(test);
        test.Time.Advance(Hour / 2);
        await test.Checkpoints.PatchAsync("chk", [new PatchOperation.SetAutokill(null)]).Guarded();
        test.Time.Advance(Hour);
        Assert.Equal(0, test.Time.ArmedTimers);
        await test.Checkpoints.PatchAsync("chk", [new PatchOperation.SetAutokill(new AutokillPolicy(Hour * 2))]).Guarded();

        test.Time.Advance((Hour / 2) - Tick);
        Assert.Single(test.Checkpoints.List());
        test.Time.Advance(Tick);

        Assert.Empty(test.Checkpoints.List());
    }

    [Fact]
    public async Task A_time_longer_than_a_timer_can_hold_is_kept()
    {
        await using TestPlatform test = new();
        AutokillPolicy policy = new(TimeSpan.FromDays(365));
        await CreateSourceAsync(test);
        await test.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk", Autokill = policy, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();

        test.Time.Advance(policy.Time - Tick);
        Assert.Single(test.Checkpoints.List());
        test.Time.Advance(Tick);

        Assert.Empty(test.Checkpoints.List());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task The_time_of_a_template_counts_from_its_last_clone_and_not_from_the_stop(bool byCall)
    {
        await using TestPlatform test = new();
        await CreateSourceAsync(test);
        await test.Instances.StopAsync("source").Guarded();
        if (!byCall)
        {
            await test.Instances.PatchAsync("source", [new PatchOperation.SetAutokill(AfterAnHour)]).Guarded();
        }

        test.Time.Advance(Hour - Tick);
        await Assert.ThrowsAsync<InvalidRequestException>(
            () => test.Templates.ConvertAsync("source", new AutokillPolicy(TimeSpan.FromTicks(1))).Guarded());
        Template template = await (byCall ? test.Templates.ConvertAsync("source", AfterAnHour) : test.Templates.ConvertAsync("source")).Guarded();
        Assert.Equal(AfterAnHour, template.Autokill);
        test.Time.Advance(Hour - Tick);
        CreateInstanceRequest clone = new() { Template = "source", Autokill = new AutokillPolicy(TimeSpan.Zero) };
        await test.Instances.CreateAsync(clone with { Name = "clone" }).Guarded();
        test.Time.Advance(Hour - Tick);
        Assert.Single(test.Templates.List());
        test.Time.Advance(Tick);

        Assert.Empty(test.Templates.List());
        Assert.Equal("clone", Assert.Single(test.Instances.List()).Name);
        // Its name is free for instances again.
        await test.Instances.CreateAsync(TestPlatform.Request("counter") with { Name = "source", Autostart = false }).Guarded();
    }

    [Fact]
    public async Task The_time_of_an_instance_counts_from_its_stop()
    {
        await using TestPlatform test = new();
        await CreateSourceAsync(test, AfterAnHour);
        test.Time.Advance(Hour * 5);
        Assert.Single(test.Instances.List());

        await test.Instances.StopAsync("source").Guarded();
        test.Time.Advance(Hour - Tick);
        await test.Instances.StartAsync("source").Guarded();
        test.Time.Advance(Hour * 5);
        await test.Instances.StopAsync("source").Guarded();
        // A stop of a stopped one changes nothing.
        test.Time.Advance(Hour / 2);
        await test.Instances.StopAsync("source").Guarded();
        test.Time.Advance((Hour / 2) - Tick);
        Assert.Single(test.Instances.List());
        test.Time.Advance(Tick);

        Assert.Empty(test.Instances.List());
        Assert.True(test.HasLogged(Autokilled));
    }

    [Fact]
    public async Task The_time_of_an_instance_that_was_never_started_counts_from_its_creation()
    {
        await using TestPlatform test = new();
        await test.Instances.CreateAsync(TestPlatform.Request("counter") with { Autostart = false, Autokill = AfterAnHour }).Guarded();
        test.Time.Advance(Hour - Tick);
        Assert.Single(test.Instances.List());
        test.Time.Advance(Tick);
        Assert.Empty(test.Instances.List());
    }

    [Fact]
    public async Task A_start_under_way_is_not_harmed()
    {
        await using TestPlatform test = new(options => options.CreateLatency = Latency);
        CreateInstanceRequest request = TestPlatform.Request("counter", "--period-ms", "0") with { Name = "it", Autostart = false, Autokill = AfterAnHour };
        await test.Instances.CreateAsync(request).Guarded();
        test.Time.Advance(Hour - Tick);
        Task<Instance> start = test.Instances.StartAsync("it");
        await test.Time.WaitForTimerAsync(Latency).Guarded();

        test.Time.Advance(Hour);

        await start.Guarded();
        Assert.Equal(InstanceState.Running, (await test.WaitAsync("it", InstanceState.Running)).State);
    }

    [Fact]
    public async Task An_instance_that_waits_for_its_restart_does_not_expire()
    {
        await using TestPlatform test = new();
        CreateInstanceRequest request = TestPlatform.Request("crash", "div0") with
        {
            Name = "it",
            RestartPolicy = RestartPolicy.OnFailure,
            Autokill = new AutokillPolicy(TimeSpan.FromSeconds(2)),
        };
        await test.Instances.CreateAsync(request).Guarded();
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(5)).Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(5));
        await test.Time.WaitForTimerAsync(TimeSpan.FromSeconds(10)).Guarded();
        Assert.Equal("it", Assert.Single(test.Instances.List()).Name);

        // A manual stop ends the sequence, and then it is unused.
        await test.Instances.StopAsync("it").Guarded();
        test.Time.Advance(TimeSpan.FromSeconds(2) - Tick);
        Assert.Single(test.Instances.List());
        test.Time.Advance(Tick);
        Assert.Empty(test.Instances.List());
    }

    [Fact]
    public async Task Loads_and_expiries_at_the_same_moment_have_one_outcome_each()
    {
        await using TestPlatform test = new();
        await CreateSourceAsync(test);
        for (int i = 0; i < 50; i++)
        {
            string name = $"chk-{i}";
            await test.Checkpoints
                .CreateAsync(new CreateCheckpointRequest { From = "source", Name = name, Autokill = AfterAnHour, WaitTimeout = Timeout.InfiniteTimeSpan })
                .Guarded();
            test.Time.Advance(Hour - Tick);
            Task expiry = Task.Run(() => test.Time.Advance(Tick));
            Task<Exception?> load = Record.ExceptionAsync(
                () => test.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = name, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded());

            await expiry.Guarded();
            Exception? error = await load;

            // Either it was loaded and stays for another hour, or it was gone for the load.
            bool isThere = test.Checkpoints.List().Any(checkpoint => string.Equals(checkpoint.Name, name, StringComparison.Ordinal));
            Assert.True(isThere ? error is null : error is ResourceNotFoundException, $"{isThere}: {error}");
        }
    }

    [Fact]
    public async Task What_has_no_policy_has_no_timer_and_what_is_gone_has_none_either()
    {
        await using TestPlatform test = new();
        await CreateSourceAsync(test);
        await CreateCheckpointAsync(test, create: false);
        Assert.Equal(1, test.Time.ArmedTimers);
        await test.Checkpoints.DeleteAsync("chk").Guarded();
        Assert.Equal(0, test.Time.ArmedTimers);

        await CreateCheckpointAsync(test, create: false);
        await test.Platform.DisposeAsync().Guarded();
        Assert.Equal(0, test.Time.ArmedTimers);
    }

    private static Task<Instance> CreateSourceAsync(TestPlatform test, AutokillPolicy? autokill = null) => test.Instances
        .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with { Name = "source", Autokill = autokill, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    private static async Task CreateCheckpointAsync(TestPlatform test, bool create = true)
    {
        if (create)
        {
            await CreateSourceAsync(test);
        }

        await test.Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk", Autokill = AfterAnHour, WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
    }

    private static Task<Instance> LoadAsync(TestPlatform test) => test.Instances
        .CreateAsync(new CreateInstanceRequest { Checkpoint = "chk" })
        .Guarded();
}

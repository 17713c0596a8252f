using Unikraft.Platform.Contracts;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

public sealed class RecoveryTests
{
    private static readonly TimeSpan Hour = TimeSpan.FromHours(1);

    [Fact]
    public async Task An_instance_that_ran_is_stopped_by_the_platform_and_can_start_again()
    {
        await using DurablePlatform before = new();
        Instance running = await before.CreateCounterAsync("worker");
        await using DurablePlatform after = before.Kill();

        Instance found = after.Instances.Get("worker");
        Assert.Equal(InstanceState.Stopped, found.State);
        Assert.Equal(StopReason.Force | StopReason.Platform, found.StopReason);
        Assert.Equal(
            (running.Uuid, running.CreatedAt, running.StartCount, running.StartedAt, running.Image),
            (found.Uuid, found.CreatedAt, found.StartCount, found.StartedAt, found.Image));
        Assert.Equal(running.Args, found.Args);

        await after.Instances.StartAsync("worker").Guarded();
        Instance again = await after.Instances.WaitAsync("worker", InstanceState.Running).Guarded();
        Assert.Equal(2, again.StartCount);
    }

    [Fact]
    public async Task A_stopped_instance_is_as_it_was()
    {
        await using DurablePlatform before = new();
        await before.Instances.CreateAsync(DurablePlatform.Request("hello", "a", "b") with
        {
            Name = "job",
            Env = new Dictionary<string, string>(StringComparer.Ordinal) { ["KEY"] = "value" },
            Tags = ["one", "two"],
            DeleteLock = true,
            Autokill = new AutokillPolicy(Hour),
            RestartPolicy = RestartPolicy.OnFailure,
            MemoryMb = 64,
        }).Guarded();
        Instance stopped = await before.Instances.WaitAsync("job", InstanceState.Stopped).Guarded();
        string log = before.Instances.ReadLog("job").Text;
        before.Time.Advance(TimeSpan.FromSeconds(2));
        await before.Instances.PatchAsync("job", [new PatchOperation.AddTags("three")]).Guarded();
        await using DurablePlatform after = before.Kill();

        Instance found = after.Instances.Get("job");
        Assert.Equal(stopped with { Tags = [], Args = [], Env = stopped.Env }, found with { Tags = [], Args = [], Env = stopped.Env });
        Assert.Equal(["one", "two", "three"], found.Tags);
        Assert.Equal(["a", "b"], found.Args);
        Assert.Equal("value", found.Env["KEY"]);
        Assert.NotEmpty(log);
        Assert.Equal(log, after.Instances.ReadLog("job").Text);
        await Assert.ThrowsAsync<DeletionProtectedException>(() => after.Instances.DeleteAsync("job"));
        await Assert.ThrowsAsync<NameConflictException>(
            () => after.Instances.CreateAsync(DurablePlatform.Request("hello") with { Name = "job" }));
    }

    [Fact]
    public async Task A_checkpoint_is_loaded_in_the_state_that_it_was_taken_in()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        CounterTick first = await before.TickAsync("source");
        Checkpoint taken = await before.CheckpointAsync("source", "point");
        await before.TickAsync("source");
        await using DurablePlatform after = before.Kill();

        Checkpoint found = after.Checkpoints.Get("point");
        Assert.Equal(taken with { Args = [], Tags = [], Env = taken.Env }, found with { Args = [], Tags = [], Env = taken.Env });
        await after.Instances.CreateAsync(new CreateInstanceRequest { Name = "loaded", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        CounterTick tick = await after.TickAsync("loaded");
        Assert.Equal((first.Nonce, first.Tick + 1), (tick.Nonce, tick.Tick));
        Assert.Equal(1, after.Checkpoints.Get("point").LoadCount);
    }

    [Fact]
    public async Task Lineage_spans_restarts_of_the_host()
    {
        await using DurablePlatform first = new();
        await first.CreateCounterAsync("one");
        await first.CheckpointAsync("one", "a");
        await first.CheckpointAsync("one", "b");
        await using DurablePlatform second = first.Kill();
        await second.Instances.CreateAsync(new CreateInstanceRequest { Name = "two", Checkpoint = "b", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await second.CheckpointAsync("two", "c");
        await second.Checkpoints.DeleteAsync("a").Guarded();
        await using DurablePlatform third = second.Kill();

        Assert.Equal(["c", "b", "a"], third.Instances.GetHistory("two").Select(entry => entry.Name));
        Assert.Equal(["b", "a"], third.Instances.GetHistory("one").Select(entry => entry.Name));
        Assert.Equal(["b", "a"], third.Checkpoints.GetHistory("c").Select(entry => entry.Name));
        Assert.Equal(["b", "c"], third.Checkpoints.List().Select(entry => entry.Name));
    }

    [Fact]
    public async Task A_template_is_cloned_after_a_restart_of_the_host()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("base");
        CounterTick first = await before.TickAsync("base");
        Template made = await before.Templates.ConvertAsync("base", new AutokillPolicy(Hour)).Guarded();
        await using DurablePlatform after = before.Kill();

        Template found = after.Templates.Get("base");
        Assert.Equal(made with { Args = [], Tags = [], Env = made.Env }, found with { Args = [], Tags = [], Env = made.Env });
        Assert.Empty(after.Instances.List());
        await Assert.ThrowsAsync<NameConflictException>(
            () => after.Instances.CreateAsync(DurablePlatform.Request("hello") with { Name = "base" }));
        Instance clone = await after.Instances
            .CreateAsync(new CreateInstanceRequest { Template = "base", WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        CounterTick tick = await after.TickAsync(clone.Uuid);
        Assert.Equal((first.Nonce, first.Tick + 1), (tick.Nonce, tick.Tick));
    }

    [Fact]
    public async Task A_clone_that_ran_continues_from_its_snapshot()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        CounterTick first = await before.TickAsync("source");
        await before.CheckpointAsync("source", "point");
        await before.Instances.CreateAsync(new CreateInstanceRequest { Name = "clone", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await before.Checkpoints.DeleteAsync("point").Guarded();
        await using DurablePlatform after = before.Kill();

        await after.Instances.StartAsync("clone").Guarded();
        CounterTick tick = await after.TickAsync("clone");
        Assert.Equal((first.Nonce, first.Tick + 1), (tick.Nonce, tick.Tick));
    }

    [Fact]
    public async Task A_branch_that_was_not_started_continues_from_its_source()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        CounterTick first = await before.TickAsync("source");
        await before.Instances.CreateAsync(new CreateInstanceRequest { Name = "branch", BranchFrom = "source", Autostart = false }).Guarded();
        await using DurablePlatform after = before.Kill();

        Assert.Equal(InstanceOriginKind.Branch, after.Instances.Get("branch").Origin!.Kind);
        await after.Instances.StartAsync("branch").Guarded();
        Assert.Equal(first.Nonce, (await after.TickAsync("branch")).Nonce);
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(0)]
    [InlineData(1)]
    public async Task Autokill_goes_on_from_where_it_was_whatever_the_clock_does(int days)
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        await before.Checkpoints.CreateAsync(new CreateCheckpointRequest
        {
            From = "source",
            Name = "point",
            Autokill = new AutokillPolicy(Hour),
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        before.Time.Advance(TimeSpan.FromMinutes(40));
        await before.Instances.PatchAsync("source", [new PatchOperation.AddTags("noted")]).Guarded();
        await using DurablePlatform after = before.Kill(start: before.Time.GetUtcNow().AddDays(days));

        after.Time.Advance(TimeSpan.FromMinutes(19));
        Assert.NotNull(after.Checkpoints.Get("point"));
        after.Time.Advance(TimeSpan.FromMinutes(2));
        Assert.Empty(after.Checkpoints.List());
    }

    [Fact]
    public async Task Autokill_of_instances_and_templates_goes_on_too()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("stopped");
        await before.Instances.PatchAsync("stopped", [new PatchOperation.SetAutokill(new AutokillPolicy(Hour))]).Guarded();
        await before.Instances.StopAsync("stopped").Guarded();
        await before.CreateCounterAsync("base");
        await before.Templates.ConvertAsync("base", new AutokillPolicy(Hour)).Guarded();
        before.Time.Advance(TimeSpan.FromMinutes(40));
        await before.Instances.PatchAsync("stopped", [new PatchOperation.AddTags("noted")]).Guarded();
        await using DurablePlatform after = before.Kill(start: before.Time.GetUtcNow().AddDays(1));

        after.Time.Advance(TimeSpan.FromMinutes(19));
        Assert.Equal(("stopped", "base"), (after.Instances.List().Single().Name, after.Templates.List().Single().Name));
        Task<Instance> gone = after.Instances.WaitAsync("stopped", InstanceState.Running);
        after.Time.Advance(TimeSpan.FromMinutes(2));
        await Assert.ThrowsAsync<ResourceNotFoundException>(() => gone.Guarded());
        Assert.Empty(after.Templates.List());
    }

    [Fact]
    public async Task A_restart_sequence_goes_on()
    {
        await using DurablePlatform before = new();
        await before.Instances.CreateAsync(DurablePlatform.Request("crash", "undefined") with { Name = "loop", RestartPolicy = RestartPolicy.Always }).Guarded();
        await before.Time.WaitForTimerAsync(TimeSpan.FromSeconds(5)).Guarded();
        Instance waiting = before.Instances.Get("loop");
        await before.Instances.PatchAsync("loop", [new PatchOperation.AddTags("noted")]).Guarded();
        await using DurablePlatform after = before.Kill(start: before.Time.GetUtcNow().AddDays(1));

        Instance found = after.Instances.Get("loop");
        Assert.Equal((2, waiting.StartCount, waiting.RestartCount), (found.Restart!.Attempt, found.StartCount, found.RestartCount));
        Assert.Equal(waiting.StopCode, found.StopCode);
        Assert.Equal(waiting.Restart!.NextAt - before.Time.GetUtcNow(), found.Restart.NextAt - after.Time.GetUtcNow());
    }

    /// <summary>Whoever opens a platform is not the one who has caused what goes on in it.</summary>
    [Fact]
    public async Task A_restart_that_goes_on_has_nothing_of_who_opened_the_platform()
    {
        await using DurablePlatform before = new();
        await before.Instances.CreateAsync(DurablePlatform.Request("crash", "undefined") with { Name = "loop", RestartPolicy = RestartPolicy.Always }).Guarded();
        await before.Time.WaitForTimerAsync(TimeSpan.FromSeconds(5)).Guarded();
        await before.Instances.PatchAsync("loop", [new PatchOperation.AddTags("noted")]).Guarded();
        AsyncLocal<string?> ambient = new() { Value = "opener" };
        List<string?> seen = [];
        ManualTimeProvider time = new();
        time.TimerMade = callback =>
        {
            if (callback.Method.DeclaringType?.Assembly == typeof(UnikraftPlatform).Assembly)
            {
                lock (seen)
                {
                    seen.Add(ambient.Value);
                }
            }
        };
        await using DurablePlatform after = new(before.Disk.AfterKill(), options: null, new InMemoryHypervisorOptions(), time);
        await time.WaitForTimerAsync(TimeSpan.FromSeconds(5)).Guarded();
        lock (seen)
        {
            Assert.NotEmpty(seen);
            Assert.All(seen, Assert.Null);
        }
    }

    [Fact]
    public async Task What_was_deleted_stays_deleted_and_its_files_are_gone()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        await before.CheckpointAsync("source", "point");
        Assert.Contains(before.Disk.Files, file => file.EndsWith(".guest", StringComparison.Ordinal));
        await before.Checkpoints.DeleteAsync("point").Guarded();
        await before.Instances.DeleteAsync("source").Guarded();
        await using DurablePlatform after = before.Kill();

        Assert.Empty(after.Checkpoints.List());
        Assert.Empty(after.Instances.List());
        await after.Platform.DisposeAsync().Guarded();
        Assert.DoesNotContain(after.Disk.Files, file => file.EndsWith(".guest", StringComparison.Ordinal) || file.EndsWith(".log", StringComparison.Ordinal));
    }

    [Fact]
    public async Task An_orderly_end_keeps_everything_too()
    {
        DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        await before.CheckpointAsync("source", "point");
        await before.DisposeAsync();
        await using DurablePlatform after = before.Kill();

        Assert.Equal(StopReason.Force | StopReason.Platform, after.Instances.Get("source").StopReason);
        Assert.Equal("point", after.Checkpoints.Get("point").Name);
        Assert.Equal(["point"], after.Instances.GetHistory("source").Select(entry => entry.Name));
    }

    [Fact]
    public async Task A_second_platform_is_refused_until_the_first_one_ends()
    {
        DurablePlatform first = new();
        DataDirectoryInUseException error = Assert.Throws<DataDirectoryInUseException>(() => new DurablePlatform(first.Disk));
        Assert.Equal(DurablePlatform.Root, error.Path);
        Assert.Contains("another one", error.Message, StringComparison.Ordinal);
        await first.DisposeAsync();
        await using DurablePlatform second = new(first.Disk);
    }

    [Fact]
    public async Task A_full_disk_fails_the_checkpoint_and_nothing_else()
    {
        await using DurablePlatform platform = new();
        await platform.CreateCounterAsync("source");
        CounterTick before = await platform.TickAsync("source");
        platform.Disk.Capacity = 0;

        StorageException error = await Assert.ThrowsAsync<StorageException>(() => platform.CheckpointAsync("source", "point"));

        Assert.True(error.IsFull);
        Assert.StartsWith("Failed to allocate checkpoint: ", error.Message, StringComparison.Ordinal);
        Assert.Empty(platform.Checkpoints.List());
        Assert.Empty(platform.Instances.GetHistory("source"));
        Assert.Equal(before.Tick + 1, (await platform.TickAsync("source")).Tick);
        platform.Disk.Capacity = long.MaxValue;
        await platform.CheckpointAsync("source", "point");
        await using DurablePlatform after = platform.Kill();
        Assert.Equal("point", after.Checkpoints.List().Single().Name);
    }

    [Fact]
    public async Task So_much_of_the_disk_stays_free_as_the_options_say()
    {
        const long Floor = 8 << 20;
        const long Room = 1 << 20;
        await using DurablePlatform platform = new(options: options => options.MinFreeDiskBytes = Floor);
        await platform.CreateCounterAsync("source");
        long used = platform.Disk.Files.Sum(file => (long)platform.Disk.Content(file).Length);
        platform.Disk.Capacity = used + Floor + 1000;
        IReadOnlyList<string> before = platform.Disk.Files;

        StorageException error = await Assert.ThrowsAsync<StorageException>(() => platform.CheckpointAsync("source", "point"));

        Assert.True(error.IsFull);
        Assert.Contains($"{Floor} are to stay free", error.Message, StringComparison.Ordinal);
        Assert.Equal(before, platform.Disk.Files);
        await Assert.ThrowsAsync<StorageException>(() => platform.Templates.ConvertAsync("source")).Guarded();
        // What is small and lets go of room is not refused.
        await platform.Instances.PatchAsync("source", [new PatchOperation.AddTags("noted")]).Guarded();
        platform.Disk.Capacity = used + Floor + Room;
        await platform.CheckpointAsync("source", "point");
        Assert.True(platform.Disk.FreeBytes(DurablePlatform.Root) >= Floor);
        platform.Disk.Capacity = used + Floor;
        await platform.Checkpoints.DeleteAsync("point").Guarded();
        await using DurablePlatform after = platform.Kill();
        Assert.Empty(after.Checkpoints.List());
        Assert.Equal(["noted"], after.Instances.Get("source").Tags);
    }

    /// <remarks>Files of what was deleted are removed in the background.</remarks>
    [Fact]
    public async Task Room_that_a_deletion_makes_is_waited_for()
    {
        const long Floor = 8 << 20;
        await using DurablePlatform platform = new(options: options => options.MinFreeDiskBytes = Floor);
        await platform.CreateCounterAsync("source");
        await platform.CheckpointAsync("source", "old");
        TaskCompletionSource asked = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource removing = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource released = new(TaskCreationOptions.RunContinuationsAsynchronously);
        platform.Disk.Capacity = platform.Disk.Files.Sum(file => (long)platform.Disk.Content(file).Length) + Floor + 1000;
        platform.Disk.Faults = (call, _) =>
        {
            if (call is "FreeBytes")
            {
                asked.TrySetResult();
            }
            else if (call is "Delete" && removing.TrySetResult())
            {
                released.Task.Wait();
                platform.Disk.Capacity = long.MaxValue;
            }

            return null;
        };
        await platform.Checkpoints.DeleteAsync("old").Guarded();
        await removing.Task.Guarded();
        Task<Checkpoint> checkpoint = platform.CheckpointAsync("source", "new");
        await asked.Task.Guarded();
        released.SetResult();

        Assert.Equal("new", (await checkpoint.Guarded()).Name);
        platform.Disk.Faults = null;
    }

    [Fact]
    public async Task A_slow_disk_holds_up_what_is_to_be_on_it_and_nothing_else()
    {
        await using DurablePlatform platform = new();
        await platform.CreateCounterAsync("source");
        CounterTick before = await platform.TickAsync("source");
        TaskCompletionSource released = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously);
        platform.Disk.Faults = (call, _) =>
        {
            if (call is "Sync")
            {
                reached.TrySetResult();
                released.Task.Wait();
            }

            return null;
        };
        Task<Checkpoint> checkpoint = platform.CheckpointAsync("source", "point");
        try
        {
            await reached.Task.Guarded();
            // The guest goes on, what is known is told, and what has not been acknowledged is not there after a crash.
            Assert.Equal(before.Tick + 1, (await platform.TickAsync("source")).Tick);
            Assert.Equal(InstanceState.Running, platform.Instances.Get("source").State);
            Assert.False(checkpoint.IsCompleted);
            await using DurablePlatform crashed = platform.Kill();
            Assert.Empty(crashed.Checkpoints.List());
        }
        finally
        {
            released.SetResult();
        }

        await checkpoint.Guarded();
        await using DurablePlatform after = platform.Kill();
        Assert.Equal("point", after.Checkpoints.List().Single().Name);
    }

    [Fact]
    public async Task A_full_disk_fails_the_conversion_and_the_instance_goes_on()
    {
        await using DurablePlatform platform = new();
        await platform.CreateCounterAsync("source");
        platform.Disk.Capacity = 0;
        await Assert.ThrowsAsync<StorageException>(() => platform.Templates.ConvertAsync("source")).Guarded();
        Assert.Equal(1, (await platform.TickAsync("source")).Tick);
        Assert.Empty(platform.Templates.List());
    }

    [Fact]
    public async Task What_is_damaged_says_so_and_the_rest_goes_on_working()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        Checkpoint sound = await before.CheckpointAsync("source", "sound");
        Checkpoint damaged = await before.CheckpointAsync("source", "damaged");
        SimulatedDisk disk = before.Disk.AfterKill();
        string[] guests = [.. disk.Files.Where(file => file.EndsWith(".guest", StringComparison.Ordinal))];
        foreach (string file in guests)
        {
            byte[] content = disk.Content(file);
            content[^2] ^= 1;
            SimulatedDisk one = before.Disk.AfterKill();
            one.Damage(file, content);
            await using DurablePlatform after = new(one);
            int failures = 0;
            foreach (Guid uuid in (Guid[])[sound.Uuid, damaged.Uuid])
            {
                try
                {
                    await after.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = uuid }).Guarded();
                }
                catch (DataDamageException error)
                {
                    failures++;
                    Assert.Equal(file, error.Path);
                    Assert.Equal([uuid], error.Dependents);
                }
            }

            Assert.Equal(1, failures);
        }
    }
}

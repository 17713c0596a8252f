using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Metadata;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>The wall clock of the host jumps while a platform runs. What lasts some time lasts as long as it should, and order is that of events.</summary>
public sealed class ClockTests
{
    private static readonly TimeSpan Hour = TimeSpan.FromHours(1);

    [Theory]
    [InlineData(-1)]
    [InlineData(1)]
    public async Task Nothing_ends_early_or_late_and_lists_go_on_in_order(int days)
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        await before.Checkpoints.CreateAsync(new CreateCheckpointRequest
        {
            From = "source",
            Name = "first",
            Autokill = new AutokillPolicy(Hour),
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        await before.CreateCounterAsync("base");
        await before.Templates.ConvertAsync("base", new AutokillPolicy(Hour)).Guarded();
        await before.CreateCounterAsync("stopped");
        await before.Instances.PatchAsync("stopped", [new PatchOperation.SetAutokill(new AutokillPolicy(Hour))]).Guarded();
        await before.Instances.StopAsync("stopped").Guarded();
        await CreateVolumeAsync(before, "one");
        Task<Instance> waiting = before.Instances.WaitAsync("source", InstanceState.Stopped, 2 * Hour);
        before.Time.Advance(Hour / 2);

        before.Time.Jump(TimeSpan.FromDays(days));

        await before.CreateCounterAsync("later");
        await before.CheckpointAsync("source", "second");
        await CreateVolumeAsync(before, "two");
        before.Time.Advance(TimeSpan.FromMinutes(29));
        await before.Instances.PatchAsync("later", [new PatchOperation.AddTags("noted")]).Guarded();
        Check(before);
        await using DurablePlatform after = before.Kill(start: before.Time.GetUtcNow());
        Check(after);
        await CreateVolumeAsync(after, "three");
        await using DurablePlatform last = after.Kill(start: after.Time.GetUtcNow().AddDays(-days));
        Assert.Equal(["one", "two", "three"], last.Platform.Volumes.List().Select(static volume => volume.Name));
        foreach (DurablePlatform platform in (DurablePlatform[])[before, after])
        {
            Task<Instance> gone = platform.Instances.WaitAsync("stopped", InstanceState.Standby);
            platform.Time.Advance(TimeSpan.FromMinutes(2));
            await Assert.ThrowsAsync<ResourceNotFoundException>(() => gone.Guarded());
            Assert.Equal("second", Assert.Single(platform.Checkpoints.List()).Name);
            Assert.Empty(platform.Templates.List());
        }

        Assert.False(waiting.IsCompleted);
        before.Time.Advance(Hour);
        await Assert.ThrowsAsync<OperationTimedOutException>(() => waiting.Guarded());
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(1)]
    public async Task A_restart_is_waited_for_as_long_as_before(int days)
    {
        await using DurablePlatform before = await WaitingAsync();
        before.Time.Advance(TimeSpan.FromSeconds(2));

        before.Time.Jump(TimeSpan.FromDays(days));

        await before.Instances.PatchAsync("loop", [new PatchOperation.AddTags("noted")]).Guarded();
        await using DurablePlatform after = before.Kill(start: before.Time.GetUtcNow());
        Assert.Equal(after.Time.GetUtcNow() + TimeSpan.FromSeconds(3), after.Instances.Get("loop").Restart!.NextAt);
        foreach (DurablePlatform platform in (DurablePlatform[])[before, after])
        {
            platform.Time.Advance(TimeSpan.FromSeconds(3) - TimeSpan.FromTicks(1));
            Assert.NotNull(platform.Instances.Get("loop").Restart!.NextAt);
            Assert.Equal(2, platform.Instances.Get("loop").StartCount);
            Task armed = platform.Time.WaitForTimerAsync(TimeSpan.FromSeconds(10));
            platform.Time.Advance(TimeSpan.FromTicks(1));
            await armed.Guarded();
            Assert.Equal(3, platform.Instances.Get("loop").StartCount);
        }
    }

    // The host can end between the moment at which a restart is due and that at which it has begun.
    [Fact]
    public async Task A_restart_that_was_due_when_the_host_ended_begins_at_once()
    {
        await using DurablePlatform before = await WaitingAsync();
        before.Time.Advance(TimeSpan.FromSeconds(2));
        await before.Instances.PatchAsync("loop", [new PatchOperation.AddTags("noted")]).Guarded();
        SimulatedDisk disk = before.Disk.AfterKill();
        using (MetadataStore store = MetadataModel.Open(disk))
        {
            StateKey key = store.States.Keys.Single(static key => key.Kind == StateKind.Instance);
            InstanceRecord record = (InstanceRecord)RecordSerializer.Decode(key.Kind, store.States[key].Payload.Span);
            Assert.InRange(store.ServiceTime, 1, record.Restart!.NextAt!.Value - 1);
            byte[] due = RecordSerializer.Encode(record with { Restart = record.Restart with { NextAt = store.ServiceTime - 1 } });
            store.Append([new StateChange(key, StateChangeKind.Put, due)], store.ServiceTime);
        }

        await using DurablePlatform after = new(disk);
        await after.Time.WaitForTimerAsync(TimeSpan.FromSeconds(10)).Guarded();
        Assert.Equal(3, after.Instances.Get("loop").StartCount);
    }

    private static void Check(DurablePlatform platform)
    {
        Assert.Equal(["first", "second"], platform.Checkpoints.List().Select(static checkpoint => checkpoint.Name));
        Assert.Equal(["second", "first"], platform.Instances.GetHistory("source").Select(static entry => entry.Name));
        Assert.Equal(["first"], platform.Checkpoints.GetHistory("second").Select(static entry => entry.Name));
        Assert.Equal(["source", "stopped", "later"], platform.Instances.List().Select(static instance => instance.Name));
        Assert.Equal(["base"], platform.Templates.List().Select(static template => template.Name));
        Assert.Equal(["one", "two"], platform.Platform.Volumes.List().Select(static volume => volume.Name));
    }

    private static async Task<DurablePlatform> WaitingAsync()
    {
        DurablePlatform platform = new();
        await platform.Instances.CreateAsync(DurablePlatform.Request("crash", "undefined") with { Name = "loop", RestartPolicy = RestartPolicy.Always }).Guarded();
        await platform.Time.WaitForTimerAsync(TimeSpan.FromSeconds(5)).Guarded();
        return platform;
    }

    private static Task<Volume> CreateVolumeAsync(DurablePlatform platform, string name) =>
        platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = name, SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
}

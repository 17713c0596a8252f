using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>A directory of which it is left to the host when it is on the disk.</summary>
public sealed class DurabilityTests
{
    private const int PowerCuts = 100;

    private static readonly string[] Checkpoints = ["first", "second", "third"];

    [Theory]
    [InlineData(Durability.Synced)]
    [InlineData(Durability.HostManaged)]
    public async Task Nothing_is_synced_that_is_left_to_the_host_and_a_kill_loses_nothing(Durability durability)
    {
        await using DurablePlatform before = new(options: options => options.Durability = durability);
        before.Disk.ResetCalls();
        CounterTick[] ticks = await RunAsync(before, "source", Checkpoints);
        await before.Checkpoints.DeleteAsync("first").Guarded();

        Assert.Equal(durability == Durability.Synced, before.Disk.Calls.Any(static call => call.StartsWith("Sync", StringComparison.Ordinal)));
        await using DurablePlatform after = before.Kill(options => options.Durability = durability);
        Assert.Equal(Checkpoints[1..], after.Checkpoints.List().Select(static checkpoint => checkpoint.Name));
        Assert.Equal(Checkpoints.Reverse(), after.Instances.GetHistory("source").Select(static entry => entry.Name));
        Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
        foreach (Checkpoint checkpoint in after.Checkpoints.List())
        {
            Assert.True(await IsLoadedAsync(after, checkpoint.Name, ticks));
        }
    }

    // Volumes are not among it: what guests flush is on the disk, and the journal has to know of it.
    [Fact]
    public async Task Volumes_are_synced_all_the_same()
    {
        await using DurablePlatform before = new(options: static options => options.Durability = Durability.HostManaged);
        before.Disk.ResetCalls();
        await before.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();

        Assert.Contains("Sync", before.Disk.Calls);
    }

    [Fact]
    public async Task What_a_power_cut_leaves_is_as_it_was_or_refused()
    {
        // What was there at the last start is on the disk.
        await using DurablePlatform first = new();
        CounterTick[] ticks = await RunAsync(first, "source", Checkpoints[..1]);
        await using DurablePlatform before = first.Kill(static options => options.Durability = Durability.HostManaged);
        ticks = [.. ticks, .. await RunAsync(before, "another", Checkpoints[1..])];
        int loaded = 0;
        int undone = 0;
        for (int seed = 0; seed < PowerCuts; seed++)
        {
            await using DurablePlatform after = new(before.Disk.AfterPowerCut(new Random(seed)), static options => options.Durability = Durability.HostManaged);
            IReadOnlyList<DataDamage> damage = await after.Platform.Data!.VerifyAsync().Guarded();
            foreach (Checkpoint checkpoint in after.Checkpoints.List())
            {
                bool isLoaded = await IsLoadedAsync(after, checkpoint.Name, ticks);
                Assert.Equal(isLoaded, !damage.Any(found => found.Dependents.Contains(checkpoint.Uuid)));
                loaded += isLoaded ? 1 : 0;
                Assert.True(isLoaded || !string.Equals(checkpoint.Name, Checkpoints[0], StringComparison.Ordinal), $"seed {seed}");
            }

            undone += Checkpoints.Length - after.Checkpoints.List().Count;
        }

        // What was synced is always there. Of what was not, the first change alone has one chance in three to be lost, each time.
        Assert.True(loaded >= PowerCuts && undone > 0, $"{loaded} loaded, {undone} undone");
    }

    /// <summary>Each opening replaces the metadata: what was on the disk may not go before what takes its place is there.</summary>
    [Fact]
    public async Task However_often_it_was_opened_a_power_cut_leaves_what_was_synced()
    {
        SimulatedDisk disk = new();
        CounterTick[] ticks;
        await using (DurablePlatform first = new(disk))
        {
            ticks = await RunAsync(first, "source", Checkpoints[..1]);
        }

        for (int opening = 0; opening < 3; opening++)
        {
            await using DurablePlatform next = new(disk, static options => options.Durability = Durability.HostManaged);
            await next.Instances.PatchAsync("source", [new PatchOperation.SetTags($"opening-{opening}")]).Guarded();
        }

        for (int seed = 0; seed < 2 * PowerCuts; seed++)
        {
            await using DurablePlatform after = new(disk.AfterPowerCut(new Random(seed)), static options => options.Durability = Durability.HostManaged);
            Assert.Equal("source", Assert.Single(after.Instances.List()).Name);
            Assert.Equal(Checkpoints[0], Assert.Single(after.Checkpoints.List()).Name);
            Assert.True(await IsLoadedAsync(after, Checkpoints[0], ticks));
        }
    }

    private static async Task<CounterTick[]> RunAsync(DurablePlatform platform, string source, string[] checkpoints)
    {
        await platform.CreateCounterAsync(source);
        List<CounterTick> ticks = [];
        foreach (string name in checkpoints)
        {
            ticks.Add(await platform.TickAsync(source));
            await platform.CheckpointAsync(source, name);
        }

        return [.. ticks];
    }

    private static async Task<bool> IsLoadedAsync(DurablePlatform platform, string name, CounterTick[] ticks)
    {
        try
        {
            Instance clone = await platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = name, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            CounterTick expected = ticks[Array.IndexOf(Checkpoints, name)];
            CounterTick tick = await platform.TickAsync(clone.Uuid);
            Assert.Equal((expected.Nonce, expected.Tick + 1), (tick.Nonce, tick.Tick));
            return true;
        }
        catch (DataDamageException)
        {
            return false;
        }
    }
}

using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>What a disk has lost and says so: reads that fail.</summary>
public sealed class UnreadableTests
{
    private const int InputOutput = 5;

    private static readonly string[] Reads = ["Read", "Open", "OpenShared"];
    private static readonly string[] Checkpoints = ["a", "b"];

    [Fact]
    public async Task A_file_that_cannot_be_read_at_a_start_is_damage_and_keeps_nothing_else_from_it()
    {
        SimulatedDisk sound = await MakeAsync();
        int refused = 0;
        int faults = 0;
        for (int call = 0; ; call++)
        {
            SimulatedDisk disk = sound.AfterKill();
            Func<bool> wasReached = FailOne(disk, Reads, call);
            DurablePlatform? platform = null;
            try
            {
                platform = new DurablePlatform(disk);
            }
            catch (DataDamageException)
            {
                refused++;
            }

            disk.Faults = null;

            // A start that was refused holds nothing: the next one in this process has the lock.
            await using DurablePlatform opened = platform ?? new DurablePlatform(disk);
            Assert.Equal(Checkpoints, opened.Checkpoints.List().Select(static checkpoint => checkpoint.Name));
            Assert.Equal("one", Assert.Single(opened.Instances.List()).Name);
            foreach (string checkpoint in Checkpoints)
            {
                await opened.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = checkpoint, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            }

            if (!wasReached())
            {
                break;
            }

            faults++;
        }

        Assert.True(faults > refused && refused > 0, $"{faults} faults, {refused} refused");
    }

    [Fact]
    public async Task A_start_that_fails_holds_nothing()
    {
        SimulatedDisk sound = await MakeAsync();
        int refused = 0;
        for (int call = 0; ; call++)
        {
            SimulatedDisk disk = sound.AfterKill();
            Func<bool> wasReached = FailOne(disk, ["List"], call);
            DurablePlatform? platform = null;
            try
            {
                platform = new DurablePlatform(disk);
            }
            catch (StorageException)
            {
                refused++;
            }

            disk.Faults = null;
            await using DurablePlatform opened = platform ?? new DurablePlatform(disk);
            Assert.Equal(Checkpoints, opened.Checkpoints.List().Select(static checkpoint => checkpoint.Name));
            if (!wasReached())
            {
                break;
            }
        }

        Assert.InRange(refused, 1, int.MaxValue);
    }

    [Fact]
    public async Task A_verification_names_the_file_that_cannot_be_read_and_goes_on()
    {
        SimulatedDisk sound = await MakeAsync();
        HashSet<string> named = new(StringComparer.Ordinal);
        for (int call = 0; ; call++)
        {
            SimulatedDisk disk = sound.AfterKill();
            await using DurablePlatform platform = new(disk);
            Func<bool> wasReached = FailOne(disk, Reads, call);
            IReadOnlyList<DataDamage> found = await platform.Platform.Data!.VerifyAsync().Guarded();
            disk.Faults = null;
            if (!wasReached())
            {
                Assert.Empty(found);
                break;
            }

            DataDamage damage = Assert.Single(found);
            Assert.Contains("cannot be read", damage.Message, StringComparison.Ordinal);
            Assert.Equal(damage.Path.EndsWith(".guest", StringComparison.Ordinal) || damage.Path.EndsWith(".log", StringComparison.Ordinal), damage.Dependents.Count > 0);
            named.Add(damage.Path);
        }

        Assert.All((string[])["manifest", ".snapshot", ".journal", ".guest", ".log"], end => Assert.Contains(named, path => path.EndsWith(end, StringComparison.Ordinal)));
    }

    [Fact]
    public async Task A_snapshot_that_cannot_be_read_is_damage_to_whoever_loads_it()
    {
        SimulatedDisk disk = (await MakeAsync()).AfterKill();
        await using DurablePlatform platform = new(disk);
        FailOne(disk, ["Read"], number: 0);
        DataDamageException error = await Assert.ThrowsAsync<DataDamageException>(
            () => platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "a", WaitTimeout = Timeout.InfiniteTimeSpan })).Guarded();
        disk.Faults = null;

        Assert.Contains(platform.Checkpoints.Get("a").Uuid, error.Dependents);
        await platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "b", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
    }

    [Fact]
    public async Task A_log_that_is_damaged_when_the_directory_is_opened_is_told_of()
    {
        SimulatedDisk disk = (await MakeAsync()).AfterKill();
        string log = Assert.Single(disk.Files, static file => file.EndsWith(".log", StringComparison.Ordinal));
        byte[] content = [.. disk.Content(log)];
        content[0] ^= 1;
        disk.Damage(log, content);
        await using DurablePlatform platform = new(disk);

        DataDamage damage = Assert.Single(platform.Platform.Data!.DamageFound);
        Assert.Equal((log, platform.Instances.Get("one").Uuid), (damage.Path, Assert.Single(damage.Dependents)));
    }

    private static async Task<SimulatedDisk> MakeAsync()
    {
        DurablePlatform before = new();
        await using (before)
        {
            await before.CreateCounterAsync("one");
            foreach (string checkpoint in Checkpoints)
            {
                await before.TickAsync("one");
                await before.CheckpointAsync("one", checkpoint);
            }

            await before.Instances.StopAsync("one").Guarded();
        }

        return before.Disk;
    }

    /// <returns>Whether the call came.</returns>
    private static Func<bool> FailOne(SimulatedDisk disk, string[] calls, int number)
    {
        int seen = 0;
        bool isReached = false;
        disk.Faults = (call, _) =>
        {
            if (!calls.Contains(call) || Interlocked.Increment(ref seen) != number + 1)
            {
                return null;
            }

            Volatile.Write(ref isReached, true);
            return new Fault.Error(InputOutput);
        };
        return () => Volatile.Read(ref isReached);
    }
}

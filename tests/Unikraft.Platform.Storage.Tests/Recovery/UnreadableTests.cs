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

    /// <summary>Damage that a start sees is told by it as a verification tells it; what shows when a snapshot is read, from then on.</summary>
    [Fact]
    public async Task Snapshots_that_are_damaged_are_among_the_damage_that_was_found()
    {
        SimulatedDisk disk = (await MakeAsync()).AfterKill();
        string[] guests = [.. disk.Files.Where(static file => file.EndsWith(".guest", StringComparison.Ordinal))];
        Guid a;
        Guid b;
        await using (DurablePlatform platform = new(disk.AfterKill()))
        {
            (a, b) = (platform.Checkpoints.Get("a").Uuid, platform.Checkpoints.Get("b").Uuid);
            Assert.Empty(platform.Platform.Data!.DamageFound);
        }

        foreach (string guest in guests)
        {
            SimulatedDisk missing = disk.AfterKill();
            missing.Damage(guest, null);
            await using (DurablePlatform platform = new(missing))
            {
                DataDamage found = Assert.Single(platform.Platform.Data!.DamageFound);
                AssertSame(Assert.Single(await platform.Platform.Data!.VerifyAsync().Guarded()), found);
                Assert.StartsWith(found.Path, guest, StringComparison.Ordinal);
                Assert.Contains(Assert.Single(found.Dependents), (Guid[])[a, b]);
            }

            SimulatedDisk changed = disk.AfterKill();
            byte[] content = changed.Content(guest);
            content[^1] ^= 1;
            changed.Damage(guest, content);
            await using (DurablePlatform platform = new(changed))
            {
                Assert.Empty(platform.Platform.Data!.DamageFound);
                int refused = 0;
                for (int round = 0; round < 2; round++)
                {
                    foreach (string checkpoint in Checkpoints)
                    {
                        refused += await Record.ExceptionAsync(() => platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = checkpoint, WaitTimeout = Timeout.InfiniteTimeSpan })).Guarded() is DataDamageException ? 1 : 0;
                    }
                }

                Assert.Equal(2, refused);
                DataDamage found = Assert.Single(platform.Platform.Data!.DamageFound);
                AssertSame(Assert.Single(await platform.Platform.Data!.VerifyAsync().Guarded()), found);
                Assert.Equal(guest, found.Path);
            }
        }

        static void AssertSame(DataDamage verified, DataDamage found) =>
            Assert.Equal((verified.Path, verified.Message, verified.Dependents[0], verified.Dependents.Count), (found.Path, found.Message, found.Dependents[0], found.Dependents.Count));
    }

    /// <summary>Each file of a directory with some of everything is on sectors that cannot be read, one after the other.</summary>
    [Fact]
    public async Task A_file_that_cannot_be_read_at_all_is_damage_to_what_needs_it_and_to_nothing_else()
    {
        // What volumes began with is in two files from the second start on.
        SimulatedDisk sound = await FurnishedDisk.MakeAsync();
        await DurablePlatform.OnOneDisk(sound).DisposeAsync();
        Dictionary<string, string> expected = new(StringComparer.Ordinal);
        await using (DurablePlatform platform = DurablePlatform.OnOneDisk(sound.AfterKill()))
        {
            foreach (FurnishedDisk.Load load in FurnishedDisk.Loads)
            {
                expected.Add(load.Name, await load.Ask(platform));
            }
        }

        HashSet<string> refused = new(StringComparer.Ordinal);
        HashSet<string> unnamed = new(StringComparer.Ordinal);
        HashSet<string> damaged = new(StringComparer.Ordinal);
        foreach (string file in sound.Files.Where(static file => !file.EndsWith("/lock", StringComparison.Ordinal)))
        {
            SimulatedDisk disk = sound.AfterKill();
            disk.MakeUnreadable(file);
            DurablePlatform platform;
            try
            {
                platform = DurablePlatform.OnOneDisk(disk);
            }
            catch (DataDamageException error)
            {
                Assert.Contains(file, error.ToString(), StringComparison.Ordinal);
                refused.Add(file);
                continue;
            }

            await using (platform.ConfigureAwait(false))
            {
                DataDamage[] told = [.. platform.Platform.Data!.DamageFound, .. await platform.Platform.Data!.VerifyAsync().Guarded()];
                Assert.All(told, damage => Assert.Contains(file, damage.ToString(), StringComparison.Ordinal));
                if (told.Length == 0)
                {
                    unnamed.Add(file);
                }

                foreach (FurnishedDisk.Load load in FurnishedDisk.Loads)
                {
                    try
                    {
                        Assert.Equal(expected[load.Name], await load.Ask(platform));
                    }
                    catch (DataDamageException error)
                    {
                        Assert.Contains(file, error.ToString(), StringComparison.Ordinal);
                        Assert.Contains(told, damage => damage.Dependents.Contains(load.Resource(platform)));
                        damaged.Add(load.Name);
                    }
                }
            }
        }

        // A start is refused without what says what there is. What is kept in case another file is damaged is not read.
        Assert.Contains("/data/volumes/volumes.journal", refused);
        Assert.All(refused.Where(static file => !file.EndsWith("/volumes.journal", StringComparison.Ordinal)), static file => Assert.StartsWith("/data/metadata/", file, StringComparison.Ordinal));
        Assert.Equal(["/data/metadata/0000000001.journal", "/data/metadata/0000000001.snapshot", "/data/volumes/volumes.journal.copy"], unnamed.Order(StringComparer.Ordinal));
        Assert.Equal(expected.Keys.Order(StringComparer.Ordinal), damaged.Order(StringComparer.Ordinal));
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

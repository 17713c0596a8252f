using System.Text;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Metadata;

public sealed class MetadataStoreTests
{
    private const int Steps = 40;

    private static readonly int[] Errors = [28, 5];

    [Fact]
    public void What_was_written_is_there_at_the_next_start()
    {
        SimulatedDisk disk = new();
        MetadataModel model = new(1);
        for (int run = 0; run < 20; run++)
        {
            using MetadataStore store = MetadataModel.Open(disk);
            model.Check(store);
            for (int i = 0; i < Steps; i++)
            {
                model.Step(store);
            }
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_crash_at_any_call_loses_nothing_that_was_acknowledged(bool isPowerCut)
    {
        int points = 0;
        for (int seed = 0; seed < 2; seed++)
        {
            // One run, which is looked at before each of its calls as if it ended there: running it anew up to each would take most of a minute.
            SimulatedDisk disk = new();
            MetadataModel model = new(seed);
            disk.Faults = (_, _) =>
            {
                points++;
                for (int cut = 0; cut < (isPowerCut ? 4 : 1); cut++)
                {
                    SimulatedDisk after = isPowerCut ? disk.AfterPowerCut(new Random(cut)) : disk.AfterKill();
                    using MetadataStore store = MetadataModel.Open(after);
                    model.Check(store);
                }

                return null;
            };
            for (int run = 0; run < 3; run++)
            {
                using MetadataStore store = MetadataModel.Open(disk);
                for (int i = 0; i < Steps; i++)
                {
                    model.Step(store);
                }
            }
        }

        Assert.True(points > 500, $"{points} points");
    }

    [Fact]
    public void A_call_that_fails_fails_one_change_and_loses_nothing()
    {
        string[] failing = ["Create", "Write", "Sync", "Rename", "SyncDirectory", "Delete", "Open", "List"];
        int faults = 0;
        foreach (int errno in Errors)
        {
            for (int call = 0; call < 400; call++)
            {
                SimulatedDisk disk = new();
                MetadataModel model = new(call);
                using (MetadataStore store = MetadataModel.Open(disk))
                {
                    disk.ResetCalls();
                    disk.Faults = (name, number) => number == call && failing.Contains(name) ? new Fault.Error(errno) : null;
                    for (int i = 0; i < Steps; i++)
                    {
                        try
                        {
                            model.Step(store);
                        }
                        catch (StorageException error)
                        {
                            faults++;
                            Assert.Equal(errno == 28, error.IsFull);
                            // It may hold at the next start or not, but here it does not.
                            Assert.Equal(model.Acknowledged.Count, store.States.Count);
                        }
                    }

                    disk.Faults = null;
                    // What was acknowledged afterwards is on the disk, whatever became of the change that failed.
                    model.Step(store);
                }

                using MetadataStore next = MetadataModel.Open(disk.AfterPowerCut(new Random(call)));
                model.Check(next);
            }
        }

        Assert.True(faults > 250, $"{faults} faults");
    }

    [Theory]
    [InlineData("Write")]
    [InlineData("Read")]
    public void Short_transfers_and_interruptions_change_nothing(string call)
    {
        SimulatedDisk disk = new() { Faults = (name, number) => string.Equals(name, call, StringComparison.Ordinal) ? number % 2 == 0 ? new Fault.Short() : number % 3 == 0 ? new Fault.Error(4) : null : null };
        MetadataModel model = new(7);
        for (int run = 0; run < 5; run++)
        {
            using MetadataStore store = MetadataModel.Open(disk);
            model.Check(store);
            for (int i = 0; i < Steps; i++)
            {
                model.Step(store);
            }
        }
    }

    [Fact]
    public void A_torn_write_that_fails_is_repeated_over_its_remains()
    {
        SimulatedDisk disk = new();
        MetadataModel model = new(11);
        using (MetadataStore store = MetadataModel.Open(disk))
        {
            int writes = 0;
            disk.Faults = (name, _) => name is "Write" && ++writes % 5 == 0 ? new Fault.Torn(5) : null;
            for (int i = 0; i < Steps * 4; i++)
            {
                try
                {
                    model.Step(store);
                }
                catch (StorageException)
                {
                    // Fails one change.
                }
            }

            disk.Faults = null;
            model.Step(store);
        }

        using MetadataStore next = MetadataModel.Open(disk.AfterKill());
        model.Check(next);
    }

    [Fact]
    public void A_full_disk_keeps_nobody_from_removing()
    {
        SimulatedDisk disk = new();
        using MetadataStore store = MetadataModel.Open(disk);
        StateKey[] keys = [.. Enumerable.Range(1, 100).Select(i => new StateKey(StateKind.Checkpoint, new Guid(i, 0, 0, new byte[8])))];
        foreach (StateKey key in keys)
        {
            store.Append([new StateChange(key, StateChangeKind.Put, "state"u8.ToArray())], 0);
        }

        disk.Capacity = 0;
        foreach (StateKey key in keys)
        {
            store.Append([new StateChange(key, StateChangeKind.Remove, default)], 0);
        }

        Assert.Empty(store.States);
        using MetadataStore next = MetadataModel.Open(disk.AfterKill());
        Assert.Empty(next.States);
    }

    [Fact]
    public void A_newer_version_is_refused_and_nothing_is_changed()
    {
        SimulatedDisk disk = new();
        MetadataModel.Open(disk).Dispose();
        byte[] newer = (new Manifest(Manifest.CurrentVersion + 1, 1, default)).Encode();
        disk.Damage("/data/manifest", newer);
        IReadOnlyList<string> before = disk.Files;

        DataVersionException error = Assert.Throws<DataVersionException>(() => MetadataModel.Open(disk));

        Assert.Equal(Manifest.CurrentVersion + 1, error.Version);
        Assert.Equal(PlatformErrorCode.UnknownDataVersion, error.Code);
        Assert.Contains($"version {Manifest.CurrentVersion + 1}", error.Message, StringComparison.Ordinal);
        Assert.Equal(before, disk.Files);
        Assert.Equal(newer, disk.Content("/data/manifest"));
    }

    /// <remarks>What is in an older version is in this one as well, and whoever only knows the former is kept from what the latter has besides.</remarks>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void A_directory_of_an_older_version_is_brought_up_whenever_the_host_ends_meanwhile(int version)
    {
        SimulatedDisk old = new();
        MetadataModel model = new(15);
        using (MetadataStore store = MetadataStore.Open(new DataFiles(old, "/data", isSynced: true), upgrades: null, version))
        {
            for (int i = 0; i < Steps; i++)
            {
                model.Step(store);
            }
        }

        for (int call = 0; ; call++)
        {
            SimulatedDisk disk = old.AfterKill();
            Assert.Equal(version, VersionOf(disk));
            disk.Faults = (_, number) => number == call ? new Fault.PowerCut() : null;
            bool isCut = false;
            try
            {
                MetadataModel.Open(disk).Dispose();
            }
            catch (PowerCutException)
            {
                isCut = true;
            }

            SimulatedDisk after = disk.AfterPowerCut(new Random(call));
            using (MetadataStore store = MetadataModel.Open(after))
            {
                model.Check(store);
            }

            Assert.Equal(Manifest.CurrentVersion, VersionOf(after));
            Assert.Equal(Manifest.CurrentVersion, Assert.Throws<DataVersionException>(() => MetadataStore.Open(new DataFiles(after, "/data", isSynced: true), upgrades: null, version)).Version);
            if (!isCut)
            {
                Assert.InRange(call, 20, int.MaxValue);
                break;
            }
        }

        static int VersionOf(SimulatedDisk disk) => Manifest.Decode(disk.Content("/data/manifest"), "/data").Version;
    }

    [Fact]
    public void An_older_version_is_brought_up_whenever_the_host_ends_meanwhile()
    {
        const int Next = Manifest.CurrentVersion + 1;
        SimulatedDisk old = new();
        MetadataModel model = new(13);
        using (MetadataStore store = MetadataModel.Open(old))
        {
            for (int i = 0; i < Steps; i++)
            {
                model.Step(store);
            }

            new DataFiles(old, "/data", isSynced: true).Publish("kept", "one"u8.ToArray());
        }

        int points = 0;
        for (int call = 0; ; call++)
        {
            SimulatedDisk disk = old.AfterKill();
            disk.Faults = (_, number) => number == call ? new Fault.PowerCut() : null;
            bool isCut = false;
            try
            {
                Upgrade(disk).Dispose();
            }
            catch (PowerCutException)
            {
                isCut = true;
                points++;
            }

            SimulatedDisk after = disk.AfterPowerCut(new Random(call));
            using (MetadataStore store = Upgrade(after))
            {
                model.Check(store);
            }

            Assert.Equal("two"u8.ToArray(), after.Content("/data/kept"));
            // Who does not know the new version keeps its hands off.
            Assert.Equal(Next, Assert.Throws<DataVersionException>(() => MetadataModel.Open(after)).Version);
            if (!isCut)
            {
                break;
            }
        }

        Assert.True(points > 20, $"{points} points");

        static MetadataStore Upgrade(SimulatedDisk disk) => MetadataStore.Open(
            new DataFiles(disk, "/data", isSynced: true),
            new Dictionary<int, Action<DataFiles>> { [Manifest.CurrentVersion] = static files => files.Publish("kept", "two"u8.ToArray()) },
            Next);
    }

    [Fact]
    public void An_upgrade_that_fails_leaves_the_old_version()
    {
        SimulatedDisk disk = new();
        MetadataModel model = new(14);
        using (MetadataStore store = MetadataModel.Open(disk))
        {
            model.Step(store);
        }

        Dictionary<int, Action<DataFiles>> upgrades = new() { [Manifest.CurrentVersion] = files => files.Publish("kept", "two"u8.ToArray()) };
        disk.Faults = (call, _) => call is "Rename" ? new Fault.Error(5) : null;
        Assert.Throws<StorageException>(() => MetadataStore.Open(new DataFiles(disk, "/data", isSynced: true), upgrades, Manifest.CurrentVersion + 1));
        disk.Faults = null;
        using MetadataStore same = MetadataModel.Open(disk.AfterKill());
        model.Check(same);
    }

    [Fact]
    public void Every_single_damage_is_found_or_harmless()
    {
        SimulatedDisk sound = new();
        MetadataModel model = new(3);
        using (MetadataStore store = MetadataModel.Open(sound))
        {
            for (int i = 0; i < 6; i++)
            {
                model.Step(store);
            }
        }

        // Damage must not be told from a torn write, so the journal ends with one.
        Dictionary<StateKey, string> expected = new(model.Acknowledged);
        Random random = new(5);
        int found = 0;
        foreach (string path in sound.Files)
        {
            byte[] content = sound.Content(path);
            for (int i = 0; i < 700; i++)
            {
                byte[] damaged = [.. content];
                int position = random.Next(content.Length);
                if (position > 20_000)
                {
                    position = random.Next(20_000);
                }

                damaged[position] ^= (byte)(1 << random.Next(8));
                found += Check(sound, path, damaged, expected) ? 1 : 0;
            }

            for (int i = 0; i < 100; i++)
            {
                found += Check(sound, path, content[..random.Next(content.Length)], expected) ? 1 : 0;
            }

            found += Check(sound, path, [.. content, .. new byte[random.Next(1, 5000)]], expected) ? 1 : 0;
            found += Check(sound, path, null, expected) ? 1 : 0;
            foreach (string other in sound.Files)
            {
                found += Check(sound, path, sound.Content(other), expected) ? 1 : 0;
            }
        }

        Assert.True(found > 1000, $"{found} found");
    }

    private static bool Check(SimulatedDisk sound, string path, byte[]? content, Dictionary<StateKey, string> expected)
    {
        SimulatedDisk disk = sound.AfterKill();
        disk.Damage(path, content);
        try
        {
            using MetadataStore store = MetadataModel.Open(disk);
            Dictionary<StateKey, string> states = MetadataModel.StatesOf(store);
            bool isSame = states.Count == expected.Count && states.All(state => expected.TryGetValue(state.Key, out string? value) && string.Equals(value, state.Value, StringComparison.Ordinal));
            if (store.Damage.Count == 0 && store.TornBytes == 0)
            {
                Assert.True(isSame, $"{path} was damaged, and nobody says so");
                return false;
            }

            // What was not damaged is as it was.
            foreach ((StateKey key, string value) in states)
            {
                Assert.True(
                    value.StartsWith("damaged", StringComparison.Ordinal) || store.TornBytes > 0 || content is null || content.Length < sound.Content(path).Length
                    || (expected.TryGetValue(key, out string? was) && string.Equals(was, value, StringComparison.Ordinal)),
                    $"{path}: {key} is {value[..Math.Min(20, value.Length)]}");
            }

            return true;
        }
        catch (DataDamageException)
        {
            return true;
        }
        catch (DataVersionException)
        {
            return true;
        }
    }
}

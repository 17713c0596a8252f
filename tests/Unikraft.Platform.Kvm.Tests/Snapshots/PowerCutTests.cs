using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>The power goes out before every call to the disk in turn: what was saved is there, what was deleted is not, and nothing is half there.</summary>
/// <remarks>In the SVM lab before one call in a hundred only: they are thousands of files, of which KVM knows nothing.</remarks>
public sealed class PowerCutTests
{
    private const int Steps = 14;
    private const int Outcomes = 3;

    [Theory]
    [InlineData(1, false)]
    [InlineData(2, false)]
    [InlineData(3, true)]
    public async Task A_power_cut_at_any_call_loses_nothing_that_was_acknowledged(int seed, bool hasLog)
    {
        int completed = 0;
        for (int call = 0; ; call += Repetitions.OneIn)
        {
            PowerCutFileSystem files = new() { CutAt = call };
            Model model = new();
            await RunAsync(files, model, seed, hasLog ? Log : null);
            for (int outcome = 0; outcome < Outcomes; outcome++)
            {
                using TestDirectory after = new();
                files.CopyTo(after.Path, new Random((call * Outcomes) + outcome));
                completed += Directory.GetFiles(after.Path, "*.tmp").Length;
                await CheckAsync(after.Path, model, $"call {call}, outcome {outcome}");
            }

            if (!files.IsOff)
            {
                Assert.InRange(call, hasLog ? 60 : 100, int.MaxValue);
                break;
            }
        }

        Assert.InRange(completed, (hasLog ? 5 : 50) / Repetitions.OneIn, int.MaxValue);
    }

    /// <summary>A longer log is made while there is an empty one, takes its place, and is used.</summary>
    [Fact]
    public async Task A_power_cut_while_a_longer_log_takes_the_place_of_one_loses_nothing_that_was_acknowledged()
    {
        int longer = 0;
        for (int call = 0; ; call += Repetitions.OneIn)
        {
            PowerCutFileSystem files = new() { CutAt = call };
            Model model = new();
            longer += await BurstAsync(files, model) ? 1 : 0;
            using (TestDirectory after = new())
            {
                files.CopyTo(after.Path, new Random(call));
                await CheckAsync(after.Path, model, $"call {call}");
            }

            if (!files.IsOff)
            {
                Assert.InRange(call, 60, int.MaxValue);
                break;
            }
        }

        // Of the calls after it had taken the place.
        Assert.InRange(longer, 10 / Repetitions.OneIn, int.MaxValue);
    }

    /// <summary>A process is killed that has snapshots in its log; the next one makes their files in the background, and saves more then.</summary>
    /// <param name="left">So many calls of making files the first one had still to do; none when it had not begun.</param>
    [Theory]
    [InlineData(null)]
    [InlineData(2)]
    [InlineData(6)]
    [InlineData(11)]
    public async Task A_power_cut_while_a_found_log_gets_its_files_loses_nothing_that_was_acknowledged(int? left)
    {
        int unsettled = 0;
        int completed = 0;
        int settling = await CountSettlingAsync();
        for (int call = 0; ; call += Repetitions.OneIn)
        {
            PowerCutFileSystem files = new();
            Model model = new();
            await SettleFoundAsync(files, model, left is { } calls ? settling - calls : 0, call);
            for (int outcome = 0; outcome < 2; outcome++)
            {
                using TestDirectory after = new();
                files.CopyTo(after.Path, new Random((call * 2) + outcome));
                unsettled += File.Exists(Path.Combine(after.Path, LogFormat.Name)) ? 1 : 0;
                completed += Directory.GetFiles(after.Path, "*.tmp").Length;
                await CheckAsync(after.Path, model, $"{left} left, call {call}, outcome {outcome}");
            }

            if (!files.IsOff)
            {
                Assert.InRange(call, 60, int.MaxValue);
                break;
            }
        }

        Assert.InRange(unsettled, 60 / Repetitions.OneIn, int.MaxValue);
        Assert.InRange(completed, 60 / Repetitions.OneIn, int.MaxValue);
    }

    /// <summary>Nothing is taken for written because a later sync succeeds.</summary>
    [Theory]
    [InlineData(1, false)]
    [InlineData(3, true)]
    public async Task A_sync_that_fails_loses_nothing_that_was_acknowledged_before_or_after(int seed, bool hasLog)
    {
        int sync = 0;
        while (true)
        {
            PowerCutFileSystem files = new() { FailedSync = sync };
            Model model = new();
            await RunAsync(files, model, seed, hasLog ? Log : null);
            using (TestDirectory after = new())
            {
                files.CopyTo(after.Path, new Random(sync));
                await CheckAsync(after.Path, model, $"sync {sync}");
            }

            if (!files.HasFailed)
            {
                break;
            }

            sync++;
        }

        Assert.InRange(sync, 20, int.MaxValue);
    }

    /// <summary>
    /// When it is left to the host what is on the disk, a power cut may lose it, and leave pieces. These are never used, whatever is written first: all, as after a crash of the process;
    /// names alone; all but one file, or but half of one; any half of all.
    /// </summary>
    [Theory]
    [InlineData(1, false)]
    [InlineData(3, true)]
    public async Task What_was_left_to_the_host_is_whole_or_refused_after_a_power_cut(int seed, bool hasLog)
    {
        PowerCutFileSystem through = new();
        Model all = new();
        await RunAsync(through, all, seed, hasLog ? Log : null, new UnsyncedFileSystem(through));
        int cases = Repetitions.Of(through.Calls / 5, least: 8);
        for (int each = 0; each < cases; each++)
        {
            int call = through.Calls * each / cases;
            PowerCutFileSystem files = new() { CutAt = call };
            Model model = new();
            await RunAsync(files, model, seed, hasLog ? Log : null, new UnsyncedFileSystem(files));
            Assert.True(files.IsOff, $"call {call}");
            await CheckLeftToTheHostAsync(files, model, $"call {call}", call);
        }

        await CheckLeftToTheHostAsync(through, all, "all calls", seed);
        Assert.InRange(all.Saved.Count, 2, int.MaxValue);

        // Whoever needs a file that did not get to the disk is refused, and nobody else. What the log has as well it gives back.
        Dictionary<string, HashSet<Guid>> needed = new(StringComparer.Ordinal);
        (HashSet<Guid> saved, _) = await FindAsync(through, static _ => WriteFate.Written, all, "as it was", needed);
        Assert.Equal(all.Saved.Order(), saved.Order());
        using TestDirectory sound = new();
        through.CopyTo(sound.Path, static _ => WriteFate.Written);
        string[] names = [.. Directory.GetFiles(sound.Path).Select(static path => Path.GetFileName(path))];
        int refusals = 0;
        foreach (string name in names)
        {
            foreach (WriteFate fate in (WriteFate[])[WriteFate.Lost, WriteFate.Torn])
            {
                (HashSet<Guid> whole, HashSet<Guid> refused) = await FindAsync(through, file => string.Equals(file, name, StringComparison.Ordinal) ? fate : WriteFate.Written, all, $"{name} {fate}");
                HashSet<Guid> users = needed.GetValueOrDefault(name) ?? [];
                bool isLog = string.Equals(name, LogFormat.Name, StringComparison.Ordinal);
                Assert.True(isLog || (refused.IsSubsetOf(users) && whole.IsSupersetOf(saved.Except(users))), $"{name} {fate}: refused {string.Join(' ', refused)}, needed by {string.Join(' ', users)}");
                Assert.True(hasLog || refused.SetEquals(users), $"{name} {fate}: refused {string.Join(' ', refused)}, needed by {string.Join(' ', users)}");
                refusals += refused.Count;
            }
        }

        Assert.InRange(refusals, 1, int.MaxValue);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Nothing_is_synced_that_is_left_to_the_host(bool isSynced)
    {
        FaultyFileSystem files = new();
        using TestDirectory folder = new();
        using SyntheticGuest guest = new(seed: 1);
        using KvmSnapshot snapshot = guest.CapturePages([1, 2]);
        Guid id = Guid.NewGuid();
        KvmSnapshotFiles snapshots = new(files, NullLogger.Instance);
        await using (SnapshotDirectory directory = (SnapshotDirectory)await snapshots.OpenDirectoryAsync(folder.Path, isSynced: isSynced))
        {
            await directory.SaveAsync(id, snapshot);
            await directory.Preparing;
            await directory.SaveAsync(Guid.NewGuid(), snapshot);
            await directory.DeleteAsync(directory.List().First(other => other != id));
            await directory.Collecting;
        }

        string[] syncs = [.. files.Calls.Intersect(["Sync", "SyncData", "SyncDirectory", "WriteBack"], StringComparer.Ordinal)];
        Assert.Equal(isSynced, syncs.Length > 0);
        await using SnapshotDirectory again = (SnapshotDirectory)await snapshots.OpenDirectoryAsync(folder.Path, isSynced: isSynced);
        Assert.Equal([id], again.List());
        using KvmSnapshot opened = (KvmSnapshot)await again.OpenAsync(id);
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
    }

    /// <summary>So small that it is used over again, and files are made when somebody wants them, for time does not pass.</summary>
    private static PublicationLogOptions Log => LogOf(new ManualTimeProvider());

    private static PublicationLogOptions LogOf(TimeProvider time) => new(time) { Length = 160 << 10, MaxLength = 320 << 10, Threshold = 1 };

    // Saves and deletes snapshots that share layers, and opens the directory anew in between.
    private static async Task RunAsync(PowerCutFileSystem files, Model model, int seed, PublicationLogOptions? log, IFileSystem? layer = null)
    {
        Random random = new(seed);
        using TestDirectory folder = new();
        using SyntheticGuest guest = new(seed);
        List<KvmSnapshot> snapshots = [];
        try
        {
            SnapshotDirectory? directory = null;
            for (int step = 0; step < Steps && !files.IsOff; step++)
            {
                try
                {
                    directory ??= SnapshotDirectory.Open(layer ?? files, folder.Path, NullLogger.Instance, log, space: null, CancellationToken.None);
                    int choice = random.Next(6);
                    if (choice == 0)
                    {
                        await directory.DisposeAsync();
                        directory = null;
                    }
                    else if (choice <= 2 && model.Saved.Count > 0)
                    {
                        model.UnderWay = model.Saved.Order().ElementAt(random.Next(model.Saved.Count));
                        await directory.DeleteAsync(model.UnderWay.Value);
                        await directory.Collecting;
                        model.Saved.Remove(model.UnderWay.Value);
                    }
                    else
                    {
                        KvmSnapshot snapshot = guest.CapturePages([.. Enumerable.Range(0, random.Next(1, 6)).Select(_ => random.Next(SyntheticGuest.Pages)).Distinct()]);
                        snapshots.Add(snapshot);
                        byte[] bytes = new byte[16];
                        random.NextBytes(bytes);
                        model.UnderWay = new Guid(bytes);
                        model.Memory[model.UnderWay.Value] = guest.Memory.ToArray();
                        await directory.SaveAsync(model.UnderWay.Value, snapshot);
                        model.Saved.Add(model.UnderWay.Value);
                        await directory.Preparing;
                        if (choice == 5)
                        {
                            directory.Settle();
                        }
                    }

                    model.UnderWay = files.IsOff ? model.UnderWay : null;
                }
                catch (StorageException) when (files.IsOff || files.HasFailed)
                {
                    // The power went out; or nobody knows what of it is on the disk.
                    if (model.UnderWay is { } failed)
                    {
                        model.Doubtful.Add(failed);
                        model.Saved.Remove(failed);
                    }
                }
            }

            if (directory is not null)
            {
                await directory.DisposeAsync();
            }
        }
        finally
        {
            snapshots.ForEach(snapshot => snapshot.Dispose());
        }
    }

    private static async Task<int> CountSettlingAsync()
    {
        PowerCutFileSystem files = new();
        using TestDirectory folder = new();
        using Guests guests = new();
        await using SnapshotDirectory directory = SnapshotDirectory.Open(files, folder.Path, NullLogger.Instance, Log, space: null, CancellationToken.None);
        await SaveInLogAsync(directory, guests, new Model());
        int before = files.Calls;
        directory.Settle();
        return files.Calls - before;
    }

    /// <summary>Leaves a log to the next process, whose disk loses its power.</summary>
    /// <param name="files">The disk.</param>
    /// <param name="model">What was saved.</param>
    /// <param name="settled">So many calls the first one made of making files.</param>
    /// <param name="cutAt">The number of the call of the second, from 0, before which the power goes out.</param>
    private static async Task SettleFoundAsync(PowerCutFileSystem files, Model model, int settled, int cutAt)
    {
        using TestDirectory folder = new();
        using Guests guests = new();
        SnapshotDirectory killed = SnapshotDirectory.Open(files, folder.Path, NullLogger.Instance, Log, space: null, CancellationToken.None);
        await SaveInLogAsync(killed, guests, model);
        files.KilledAt = files.Calls + settled;
        await killed.DisposeAsync();
        files.KilledAt = int.MaxValue;
        files.CutAt = files.Calls + cutAt;
        try
        {
            ManualTimeProvider time = new();
            SnapshotDirectory directory = SnapshotDirectory.Open(files, folder.Path, NullLogger.Instance, LogOf(time), space: null, CancellationToken.None);
            try
            {
                Assert.True(files.IsOff || directory.Pending > 0);
                for (Task settling = directory.Settling; !settling.IsCompleted;)
                {
                    time.Advance(TimeSpan.FromMilliseconds(50));
                    await Task.Yield();
                }

                // The first makes a log in the place of the one that was found, and the second is in it.
                await SaveAsync(directory, guests, model, 6, 300);
                await SaveAsync(directory, guests, model, 7);
            }
            finally
            {
                await directory.DisposeAsync();
            }
        }
        catch (StorageException) when (files.IsOff)
        {
            // What was under way may be there.
        }
    }

    // One in files and four of two guests in a log.
    private static async Task SaveInLogAsync(SnapshotDirectory directory, Guests guests, Model model)
    {
        for (int step = 0; step < 5; step++)
        {
            await SaveAsync(directory, guests, model, step, 20 + step, 40);
        }

        Assert.Equal(4, directory.Pending);
    }

    private static async Task SaveAsync(SnapshotDirectory directory, Guests guests, Model model, params int[] pages)
    {
        (KvmSnapshot snapshot, byte[] memory) = guests.Capture(pages);
        model.UnderWay = new Guid(model.Memory.Count + 1, 0, 0, new byte[8]);
        model.Memory[model.UnderWay.Value] = memory;
        await directory.SaveAsync(model.UnderWay.Value, snapshot);
        model.Saved.Add(model.UnderWay.Value);
        model.UnderWay = null;
        await directory.Preparing;
    }

    // Fills a log, which is made longer then, and saves and deletes more.
    private static async Task<bool> BurstAsync(PowerCutFileSystem files, Model model)
    {
        using TestDirectory folder = new();
        using SyntheticGuest guest = new(seed: 4);
        List<KvmSnapshot> snapshots = [];
        string path = Path.Combine(folder.Path, LogFormat.Name);
        bool isLonger = false;
        try
        {
            SnapshotDirectory directory = SnapshotDirectory.Open(files, folder.Path, NullLogger.Instance, Log, space: null, CancellationToken.None);
            for (int step = 0; step < 10 && !files.IsOff; step++)
            {
                try
                {
                    if (step == 6)
                    {
                        directory.Settle();
                        directory.LengthenIfWorthIt();
                        await directory.Preparing;
                        isLonger = !files.IsOff && new FileInfo(path).Length == Log.MaxLength;
                        Assert.True(isLonger || files.IsOff);
                    }
                    else if (step == 8)
                    {
                        model.UnderWay = model.Saved.Order().First();
                        await directory.DeleteAsync(model.UnderWay.Value);
                        await directory.Collecting;
                        model.Saved.Remove(model.UnderWay.Value);
                    }
                    else
                    {
                        KvmSnapshot snapshot = guest.CapturePages(step, 20 + step, 40, 60, 80);
                        snapshots.Add(snapshot);
                        model.UnderWay = new Guid(step + 1, 0, 0, new byte[8]);
                        model.Memory[model.UnderWay.Value] = guest.Memory.ToArray();
                        await directory.SaveAsync(model.UnderWay.Value, snapshot);
                        model.Saved.Add(model.UnderWay.Value);
                        await directory.Preparing;
                    }

                    model.UnderWay = files.IsOff ? model.UnderWay : null;
                }
                catch (StorageException) when (files.IsOff)
                {
                    if (model.UnderWay is { } failed)
                    {
                        model.Doubtful.Add(failed);
                        model.Saved.Remove(failed);
                    }
                }
            }

            await directory.DisposeAsync();
        }
        catch (StorageException) when (files.IsOff)
        {
            // Before it was open.
        }
        finally
        {
            snapshots.ForEach(static snapshot => snapshot.Dispose());
        }

        return isLonger;
    }

    private static async Task CheckLeftToTheHostAsync(PowerCutFileSystem files, Model model, string context, int seed)
    {
        using (TestDirectory killed = new())
        {
            files.CopyTo(killed.Path, static _ => WriteFate.Written);
            await CheckAsync(killed.Path, model, context);
        }

        (HashSet<Guid> whole, _) = await FindAsync(files, static _ => WriteFate.Lost, model, $"{context}, names alone");
        Assert.Empty(whole);
        using TestDirectory halved = new();
        files.CopyTo(halved.Path, new Random(seed));
        await FindAsync(halved.Path, model, $"{context}, halved");
    }

    private static async Task<(HashSet<Guid> Whole, HashSet<Guid> Refused)> FindAsync(
        PowerCutFileSystem files,
        Func<string, WriteFate> fateOf,
        Model model,
        string context,
        Dictionary<string, HashSet<Guid>>? needed = null)
    {
        using TestDirectory after = new();
        files.CopyTo(after.Path, fateOf);
        return await FindAsync(after.Path, model, context, needed);
    }

    /// <summary>Tells the snapshots that are as they were saved from those that are refused. There are no others.</summary>
    private static async Task<(HashSet<Guid> Whole, HashSet<Guid> Refused)> FindAsync(string path, Model model, string context, Dictionary<string, HashSet<Guid>>? needed = null)
    {
        HashSet<Guid> whole = [];
        HashSet<Guid> refused = [];
        await using SnapshotDirectory directory = SnapshotDirectory.Open(new FaultyFileSystem(), path, NullLogger.Instance, logOptions: null, space: null, CancellationToken.None);
        foreach (Guid id in directory.List())
        {
            try
            {
                using KvmSnapshot snapshot = (KvmSnapshot)await directory.OpenAsync(id);
                Assert.True(model.Memory[id].AsSpan().SequenceEqual(SyntheticGuest.MemoryOf(snapshot)), $"{context}: {id}");
                whole.Add(id);
            }
            catch (SnapshotFileException)
            {
                refused.Add(id);
            }

            if (needed is not null)
            {
                foreach (string name in directory.GetFiles(id))
                {
                    (needed.TryGetValue(name, out HashSet<Guid>? users) ? users : needed[name] = []).Add(id);
                }
            }
        }

        return (whole, refused);
    }

    private static async Task CheckAsync(string path, Model model, string context)
    {
        // This time the power stays on, so that nothing needs to wait for the disk.
        FaultyFileSystem files = new() { Fault = static (call, _) => call is "Sync" or "SyncData" or "SyncDirectory" or "WriteBack" ? 0 : null };
        SnapshotDirectory directory = SnapshotDirectory.Open(files, path, NullLogger.Instance, logOptions: null, space: null, CancellationToken.None);
        await using (directory.ConfigureAwait(false))
        {
            Guid[] found = [.. directory.List()];
            Assert.True(
                model.Saved.Except(found).All(id => id == model.UnderWay) && found.Except(model.Saved).All(id => id == model.UnderWay || model.Doubtful.Contains(id)),
                $"{context}: saved {string.Join(' ', model.Saved)}, under way {model.UnderWay}, found {string.Join(' ', found)}");
            foreach (Guid id in found)
            {
                await directory.VerifyAsync(id);
                using KvmSnapshot snapshot = (KvmSnapshot)await directory.OpenAsync(id);
                Assert.True(model.Memory[id].AsSpan().SequenceEqual(SyntheticGuest.MemoryOf(snapshot)), $"{context}: {id}");
            }

            foreach (Guid id in found)
            {
                await directory.DeleteAsync(id);
            }

            await directory.Collecting;
            Assert.Equal(["lock"], Directory.GetFiles(path).Select(file => Path.GetFileName(file)));
        }
    }

    /// <summary>Two guests in turn.</summary>
    private sealed class Guests : IDisposable
    {
        private readonly SyntheticGuest[] _guests = [new(5), new(6)];
        private readonly List<KvmSnapshot> _snapshots = [];

        internal (KvmSnapshot Snapshot, byte[] Memory) Capture(int[] pages)
        {
            SyntheticGuest guest = _guests[_snapshots.Count % 3 == 2 ? 1 : 0];
            _snapshots.Add(guest.CapturePages(pages));
            return (_snapshots[^1], guest.Memory.ToArray());
        }

        public void Dispose()
        {
            _snapshots.ForEach(static snapshot => snapshot.Dispose());
            foreach (SyntheticGuest guest in _guests)
            {
                guest.Dispose();
            }
        }
    }

    private sealed class Model
    {
        internal HashSet<Guid> Saved { get; } = [];

        internal Dictionary<Guid, byte[]> Memory { get; } = [];

        internal Guid? UnderWay { get; set; }

        /// <summary>What has failed: it may be there or not.</summary>
        internal HashSet<Guid> Doubtful { get; } = [];
    }
}

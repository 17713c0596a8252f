using System.Security.Cryptography;
using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>
/// A host was killed, or its power went out, while records of its log had no files, or some of them. Then bytes of any of the files change, and files are cut, grow, vanish or change places:
/// all is found or harmless, nothing is used, and what is not damaged keeps working.
/// </summary>
public sealed class UnsettledLogDamageTests : SnapshotFilesTest
{
    private const string CountVariable = "UNIKRAFT_DAMAGES";

    // So small that its beginning is used over again, and that 10,000 copies are made in little time.
    private const int Length = 192 << 10;

    /// <summary>When the host ended: with nothing done yet, before the nth call of a kind of those that make the files, or long before, when the names of older files were not on the disk.</summary>
    private static readonly (string? Call, int Number, bool HasOldNames)[] s_ends =
    [
        (null, 0, false),
        ("Write", 7, false),
        ("SyncDirectory", 0, false),
        ("Rename", 3, false),
        ("SyncData", 0, false),
        (null, 0, true),
    ];

    /// <remarks>Not in the SVM lab: files, of which KVM knows nothing.</remarks>
    [Fact]
    [Trait("Lab", "TooLong")]
    public async Task Damage_anywhere_in_a_directory_with_an_unsettled_log_is_found_or_harmless()
    {
        // Half as many as of a directory in memory: each is unpacked to a disk, and looked at twice.
        int count = int.TryParse(Environment.GetEnvironmentVariable(CountVariable), out int wanted) ? wanted / 2 : 300;
        List<KilledDirectory> directories = [];
        foreach ((string? call, int number, bool hasOldNames) in s_ends)
        {
            directories.Add(await KillAsync(call, number, hasOldNames));
        }

        // This time the power stays on, so that nothing needs to wait for the disk.
        FileSystem.Fault = static (call, _) => call is "Sync" or "SyncData" or "SyncDirectory" or "WriteBack" ? 0 : null;
        Random random = new(31);
        int refused = 0;
        int whole = 0;
        for (int i = 0; i < count; i++)
        {
            KilledDirectory killed = directories[i % directories.Count];
            using TestDirectory folder = killed.Unpack();
            HashSet<string> touched = [];
            string context = $"{i}: {s_ends[i % s_ends.Length]}";

            // Every fifth time when the log was read, and before anything is made of it.
            bool isLate = i % 5 == 4;
            context += isLate ? "" : $", {Damage(folder.Path, killed, random, touched)}";
            FileSystem.Reset();
            ManualTimeProvider time = new();
            HashSet<Guid> found;
            SnapshotDirectory directory = OpenFound(folder.Path, time);
            await using (directory.ConfigureAwait(false))
            {
                context += isLate ? $", once it was open: {Damage(folder.Path, killed, random, touched)}" : "";
                if (i % 3 == 0)
                {
                    await SettleAsync(directory, time);
                }

                found = await LookAsync(directory, killed, touched, context, isWhole: i % 40 == 0, random);
            }

            whole += found.Count;
            refused += killed.Saved.Count - found.Count;
            SnapshotDirectory again = OpenFound(folder.Path, time);
            await using (again.ConfigureAwait(false))
            {
                // What was there stays there.
                HashSet<Guid> later = await LookAsync(again, killed, touched, $"{context}, the next time", isWhole: false, random);
                Assert.True(later.IsSupersetOf(found), $"{context}: {string.Join(' ', found.Except(later))} was there and is not");
            }
        }

        Assert.InRange(refused, count / 4, int.MaxValue);
        Assert.InRange(whole, 4 * count, int.MaxValue);
    }

    /// <returns>The snapshots that are as they were saved. All others are refused, and about what was touched.</returns>
    private static async Task<HashSet<Guid>> LookAsync(SnapshotDirectory directory, KilledDirectory killed, HashSet<string> touched, string context, bool isWhole, Random random)
    {
        Guid[] listed = [.. directory.List()];
        HashSet<Guid> found = [];
        Guid[] all = [.. killed.Saved.Keys.Union(listed)];
        random.Shuffle(all);
        foreach (Guid id in all)
        {
            Exception? error = await Record.ExceptionAsync(async () =>
            {
                using KvmSnapshot opened = await OpenAsync(directory, id);
                SavedSnapshot? saved = killed.Find(id, touched);
                Assert.True(saved is not null, $"{context}: {id} was never saved");
                Assert.True(string.Equals(saved.Description, Describe(opened), StringComparison.Ordinal), $"{context}: {id} is not what was saved");
                Assert.True(!isWhole || saved.Memory.AsSpan().SequenceEqual(SyntheticGuest.MemoryOf(opened)), $"{context}: the memory of {id}");
                await directory.VerifyAsync(id).Guarded();
            });
            if (error is null)
            {
                found.Add(id);
                continue;
            }

            string said = $"{context}: {id}: {error}";
            Assert.True(killed.Saved.TryGetValue(id, out SavedSnapshot? lost) ? lost.IsNeeding(touched) : touched.Count > 0, said);
            if (error is SnapshotFileException damage)
            {
                Assert.Contains(id, damage.Snapshots);
                Assert.Contains(damage.Path, damage.Message, StringComparison.Ordinal);
                Assert.True(
                    touched.Contains(Path.GetFileName(damage.Path)) || touched.Contains(Path.GetFileName(damage.Path) + FileStore.TemporarySuffix) || touched.Any(KilledDirectory.IsOfLog),
                    said);
            }
            else
            {
                // Nothing that is left speaks of it.
                Assert.True(error is ResourceNotFoundException && !listed.Contains(id), said);
            }
        }

        return found;
    }

    private static string Damage(string folder, KilledDirectory killed, Random random, HashSet<string> touched)
    {
        string[] names = [.. Directory.GetFiles(folder).Select(static path => Path.GetFileName(path)).Where(static name => name is not "lock").Order(StringComparer.Ordinal)];

        // The log is one of many files, and the one that this is about.
        string name = random.Next(3) == 0 && names.Contains(LogFormat.Name) ? LogFormat.Name : names[random.Next(names.Length)];
        string path = Path.Combine(folder, name);
        byte[] content = File.ReadAllBytes(path);
        string other = names[random.Next(names.Length)];
        int change = random.Next(12);
        switch (content.Length == 0 ? change % 6 : change)
        {
            case 0:
                killed.Touch(touched, name);
                int length = random.Next(content.Length);
                Write(path, content[..length]);
                return $"{name} cut off at {length}";
            case 1:
                killed.Touch(touched, name);
                byte[] more = new byte[random.Next(1, 2 * LogFormat.Block)];
                random.NextBytes(more);
                Write(path, [.. content, .. more]);
                return $"{name} longer by {more.Length}";
            case 2:
                killed.Touch(touched, name);
                File.Delete(path);
                return $"{name} gone";
            case 3:
                killed.Touch(touched, name);
                killed.Touch(touched, other);
                Write(path, File.ReadAllBytes(Path.Combine(folder, other)));
                Write(Path.Combine(folder, other), content);
                return $"{name} swapped with {other}";
            case 4:
                killed.Touch(touched, name);
                killed.Touch(touched, other);
                File.Move(path, Path.Combine(folder, other), overwrite: true);
                return $"{name} renamed to {other}";
            case 5:
                // What was another snapshot or layer, or under its temporary name, or is nothing of this.
                killed.Touch(touched, name);
                string renamed = random.Next(3) switch
                {
                    0 => $"{new Guid(random.Next(), 0, 0, new byte[8]):D}{name[name.IndexOf('.', StringComparison.Ordinal)..]}",
                    1 => name.EndsWith(FileStore.TemporarySuffix, StringComparison.Ordinal) ? name[..^FileStore.TemporarySuffix.Length] : name + FileStore.TemporarySuffix,
                    _ => name + ".old",
                };
                killed.Touch(touched, renamed);
                File.Move(path, Path.Combine(folder, renamed), overwrite: true);
                return $"{name} renamed to {renamed}";
            case 6:
                killed.Touch(touched, name);
                int start = random.Next(content.Length);
                content = [.. content];
                random.NextBytes(content.AsSpan(start, random.Next(1, Math.Min(9000, content.Length - start + 1))));
                Write(path, content);
                return $"{name} written over from {start}";
            default:
                // Logs have room for what is to come.
                int place = random.Next(Math.Max(1, content.AsSpan().LastIndexOfAnyExcept((byte)0) + 1));
                killed.Touch(touched, name, place);
                content = [.. content];
                content[place] ^= (byte)(1 << random.Next(8));
                Write(path, content);
                return $"{name} changed at {place}";
        }
    }

    // What is open stays the same file.
    private static void Write(string path, byte[] content)
    {
        using FileStream file = new(path, FileMode.OpenOrCreate, FileAccess.Write, FileShare.ReadWrite, bufferSize: 0);
        file.Write(content);
        file.SetLength(content.Length);
    }

    /// <summary>All that a snapshot has, but for pages that are zero.</summary>
    private static string Describe(KvmSnapshot snapshot)
    {
        using IncrementalHash pages = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using PageMap memory = snapshot.ShareMemory();
        byte[] page = new byte[PageSize.Bytes];
        List<int> numbers = [];
        foreach (PageExtent extent in memory.Extents)
        {
            for (int number = extent.Start; number < extent.End; number++)
            {
                extent.Layer.Read(page, (long)number << PageSize.Shift);
                pages.AppendData(page);
                numbers.Add(number);
            }
        }

        pages.AppendData(SyntheticGuest.RegistersOf(snapshot, 0));
        pages.AppendData(SyntheticGuest.RegistersOf(snapshot, 1));
        return string.Join(
            ' ',
            [
                string.Join(',', numbers),
                Convert.ToHexString(pages.GetHashAndReset()),
                string.Join(',', snapshot.Vcpus.Select(static vcpu => (vcpu.Wait, vcpu.IsWakePending))),
                Convert.ToHexString(snapshot.Device.ConsoleInput),
                (snapshot.Device with { ConsoleInput = [] }).ToString(),
                (snapshot.StoredBytes, snapshot.Depth, snapshot.Pause, snapshot.Throttled).ToString(),
            ]);
    }

    private SnapshotDirectory OpenFound(string path, ManualTimeProvider time) => SnapshotDirectory.Open(
        FileSystem,
        path,
        NullLogger.Instance,
        new PublicationLogOptions(time) { Length = Length, MaxLength = Length, Threshold = 3 },
        space: null,
        CancellationToken.None);

    private static async Task SettleAsync(SnapshotDirectory directory, ManualTimeProvider time)
    {
        Task settling = directory.Settling;
        while (!settling.IsCompleted)
        {
            time.Advance(TimeSpan.FromMilliseconds(50));
            await Task.Yield();
        }

        await settling.Guarded();
    }

    /// <summary>Has a host save snapshots of two guests, some of them through its log, delete one, and end while it makes files of the others.</summary>
    private async Task<KilledDirectory> KillAsync(string? lastCall, int number, bool hasOldNames)
    {
        using TestDirectory elsewhere = new();
        using SyntheticGuest guest = new(151);
        using SyntheticGuest stranger = new(152);
        ManualTimeProvider time = new();
        Dictionary<Guid, SavedSnapshot> saved = [];
        FileSystem.Fault = null;
        await using SnapshotDirectory directory = OpenFound(elsewhere.Path, time);
        await SaveAsync(guest, 0, 1, 2, 3);
        await SaveAsync(guest, 3, 4);
        await SaveAsync(stranger, 1, 2);
        await directory.Preparing.Guarded();
        Guid deleted = await SaveAsync(guest, 5);
        await SaveAsync(guest, 6, 300);
        directory.Settle();
        await directory.DeleteAsync(deleted);
        _ = saved.Remove(deleted, out SavedSnapshot? gone);
        await directory.Collecting.Guarded();
        await SaveAsync(guest, 7, 8);
        await SaveAsync(stranger, 2, 9);
        await SaveAsync(guest, 8, 301);
        await SaveAsync(stranger, 10);
        Assert.Equal(4, directory.Pending);
        int calls = 0;
        bool isOff = false;
        if (lastCall is not null)
        {
            FileSystem.Fault = (name, _) =>
            {
                isOff |= string.Equals(name, lastCall, StringComparison.Ordinal) && calls++ == number;
                return isOff ? -Libc.ErrnoInputOutput : null;
            };
            Assert.Throws<StorageException>(() => directory.Settle());
        }

        Dictionary<string, byte[]> files = new(StringComparer.Ordinal);
        foreach (string path in Directory.GetFiles(elsewhere.Path).Where(static path => Path.GetFileName(path) is not "lock"))
        {
            string name = Path.GetFileName(path);
            files.Add(hasOldNames && !KilledDirectory.IsOfLog(name) ? name + FileStore.TemporarySuffix : name, await File.ReadAllBytesAsync(path));
        }

        Assert.Equal(lastCall is not null, isOff);
        KilledDirectory killed = new(files, saved, (deleted, gone!));
        killed.Learn(elsewhere.Path);
        return killed;

        async Task<Guid> SaveAsync(SyntheticGuest of, params int[] pages)
        {
            using KvmSnapshot snapshot = of.CapturePages(pages);
            Guid id = await SnapshotFilesTest.SaveAsync(directory, snapshot);
            saved.Add(id, new SavedSnapshot(Describe(snapshot), of.Memory.ToArray()));
            return id;
        }
    }

    /// <summary>A snapshot that its host was told of as saved.</summary>
    /// <param name="Description">What it has.</param>
    /// <param name="Memory">The memory that a machine gets from it.</param>
    private sealed record SavedSnapshot(string Description, byte[] Memory)
    {
        /// <summary>For its state and each of its layers, where it is: in a file, in a record, or in both.</summary>
        internal List<string[]> Parts { get; } = [];

        // One copy that is sound is enough.
        internal bool IsNeeding(HashSet<string> touched) => Parts.Any(part => part.All(touched.Contains));
    }

    /// <summary>The files that a host has left.</summary>
    private sealed class KilledDirectory(Dictionary<string, byte[]> files, Dictionary<Guid, SavedSnapshot> saved, (Guid Id, SavedSnapshot Snapshot) deleted)
    {
        private readonly List<(long Start, long End, string Name)> _records = [];

        internal IReadOnlyDictionary<Guid, SavedSnapshot> Saved => saved;

        /// <summary>What a snapshot is if it is there. One that was deleted is back, whole, when the header of the log that knew of it is damaged: its platform removes what it does not know.</summary>
        internal SavedSnapshot? Find(Guid id, HashSet<string> touched) =>
            id == deleted.Id && touched.Any(IsOfLog) ? deleted.Snapshot : saved.GetValueOrDefault(id);

        internal static bool IsOfLog(string name) => name.StartsWith(LogFormat.Name, StringComparison.Ordinal);

        internal TestDirectory Unpack()
        {
            TestDirectory folder = new();
            foreach ((string name, byte[] content) in files)
            {
                File.WriteAllBytes(Path.Combine(folder.Path, name), content);
            }

            return folder;
        }

        /// <summary>Learns where all of the snapshots is.</summary>
        internal void Learn(string path)
        {
            using PublicationLog log = PublicationLog.TryOpen(new FileStore(HostFileSystem.Instance, path))!;
            Dictionary<string, List<string>> places = new(StringComparer.Ordinal);
            foreach (string name in files.Keys.Where(static name => !IsOfLog(name)))
            {
                places.Add(name, [name]);
            }

            Dictionary<Guid, SnapshotState> states = [];
            foreach ((var record, SnapshotState state) in log.Read(CancellationToken.None).Sound)
            {
                string name = $"{LogFormat.Name}:{record.Sequence}";
                _records.Add((record.Offset, record.Offset + record.Length, name));
                states.Add(record.Snapshot, state);
                foreach (string part in record.Layers.Select(static layer => LayerFormat.NameOf(layer.Header.Id)).Append(StateFile.NameOf(record.Snapshot)))
                {
                    // What the host had not given its name by then is made once more.
                    places[part] = [name, .. places.ContainsKey(part) ? [part] : Array.Empty<string>()];
                }
            }

            foreach ((Guid id, SavedSnapshot snapshot) in saved)
            {
                string name = StateFile.NameOf(id);
                SnapshotState state = states.TryGetValue(id, out SnapshotState? found)
                    ? found
                    : StateFile.Decode(files.GetValueOrDefault(name) ?? files[name + FileStore.TemporarySuffix]);
                foreach (string part in state.Layers.Select(static layer => LayerFormat.NameOf(layer.Id)).Append(name))
                {
                    snapshot.Parts.Add([.. places.GetValueOrDefault(part) ?? places[part + FileStore.TemporarySuffix]]);
                }
            }
        }

        /// <summary>Notes what a change may cost.</summary>
        internal void Touch(HashSet<string> touched, string name, int? place = null)
        {
            // A start may have given it that name.
            touched.Add(files.ContainsKey(name) ? name : name + FileStore.TemporarySuffix);
            touched.Add(name);
            if (string.Equals(name, LogFormat.Name, StringComparison.Ordinal))
            {
                // A header is there twice.
                touched.UnionWith(_records.Where(record => place is null || (place >= record.Start && place < record.End)).Select(static record => record.Name));
            }
        }
    }
}

using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>The journal of volumes while a platform runs: it does not grow for ever, writing it anew loses nothing at any call, and a full disk leaves room to delete.</summary>
public sealed class VolumeJournalTests
{
    private const string Root = "/volumes";
    private const int NoSpace = 28;
    private const int InputOutput = 5;

    private static readonly int MinRewriteLength = new VolumeJournalOptions().MinRewriteLength;

    // Long ones, so that few of them make a journal that is written anew.
    private static readonly string Long = new('x', MinRewriteLength / 5);

    [Fact]
    public void Its_length_is_that_of_what_it_knows_and_not_of_what_has_happened()
    {
        SimulatedDisk disk = NewDisk();
        Guid[] volumes = [.. Enumerable.Range(0, 10).Select(static _ => Guid.NewGuid())];
        using (VolumeJournal journal = Open(disk, out _))
        {
            for (int i = 0; i < 20_000; i++)
            {
                journal.Append(new VolumeChange { Set = [Volume(volumes[i % 10], $"{i}")] });
            }
        }

        Assert.InRange(disk.Content(Path.Combine(Root, VolumeJournal.FileName)).Length, 1, 2 * MinRewriteLength);
        using VolumeJournal again = Open(disk, out Dictionary<Guid, VolumeRecord> records);
        Assert.Equal(volumes.Select(static (uuid, i) => (uuid, (string?)$"{19_990 + i}")).OrderBy(static volume => volume.uuid), NamesIn(records));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_host_that_ends_at_any_call_loses_no_change_that_was_made(bool isPowerCut)
    {
        int rewritten = 0;
        for (int call = 0; ; call++)
        {
            int at = call;
            SimulatedDisk disk = NewDisk();
            disk.Faults = (_, number) => number == at ? new Fault.PowerCut() : null;
            Model model = new();
            bool isEnded = Run(disk, model);
            rewritten += disk.Calls.Count(static name => name is "Rename") > 2 ? 1 : 0;
            if (!isEnded)
            {
                break;
            }

            for (int outcome = 0; outcome < 3; outcome++)
            {
                SimulatedDisk left = isPowerCut ? disk.AfterPowerCut(new Random((3 * call) + outcome)) : disk.AfterKill();
                using VolumeJournal journal = Open(left, out Dictionary<Guid, VolumeRecord> records);
                model.Check(records, $"call {call}, outcome {outcome}");
                Assert.Null(VolumeJournal.FindDamage(new DataFiles(left, Root, isSynced: true)));
            }
        }

        Assert.True(rewritten > 10, $"{rewritten} ends in or after a rewriting");
    }

    [Theory]
    [InlineData(NoSpace)]
    [InlineData(InputOutput)]
    public void A_call_that_fails_fails_at_most_one_change_and_the_next_one_is_made(int errno)
    {
        int failures = 0;
        for (int call = 0; ; call++)
        {
            int at = call;
            SimulatedDisk disk = NewDisk();
            Model model = new();
            VolumeJournal journal = Open(disk, out _);
            disk.ResetCalls();
            bool isMet = false;
            disk.Faults = (_, number) => number == at && (isMet = true) ? new Fault.Error(errno) : null;
            foreach (VolumeChange change in Model.Changes)
            {
                try
                {
                    model.Begin(change);
                    journal.Append(change);
                    model.End(change);
                }
                catch (StorageException)
                {
                    failures++;
                    model.Forget();
                    disk.Faults = null;
                }
            }

            journal.Dispose();
            foreach (SimulatedDisk left in (SimulatedDisk[])[disk.AfterKill(), disk.AfterPowerCut(new Random(call))])
            {
                using VolumeJournal again = Open(left, out Dictionary<Guid, VolumeRecord> records);
                model.Check(records, $"call {call}");
            }

            if (!isMet)
            {
                break;
            }
        }

        Assert.True(failures > 20, $"{failures} failures");
    }

    [Fact]
    public void On_a_full_disk_volumes_can_be_removed_and_a_journal_that_is_sound_can_be_opened()
    {
        SimulatedDisk disk = NewDisk();
        Guid[] volumes = [.. Enumerable.Range(0, 40).Select(static _ => Guid.NewGuid())];
        using (VolumeJournal journal = Open(disk, out _))
        {
            foreach (Guid uuid in volumes)
            {
                journal.Append(new VolumeChange { Set = [Volume(uuid, "short")] });
            }

            disk.Fill();
            StorageException? full = null;
            for (int i = 0; full is null; i++)
            {
                Assert.True(i < 10, "the disk has room");
                full = (StorageException?)Record.Exception(() => journal.Append(new VolumeChange { Set = [Volume(volumes[0], new string('y', 20_000))] }));
            }

            Assert.True(full.IsFull);
            foreach (Guid uuid in volumes[..20])
            {
                journal.Append(new VolumeChange { Removed = [uuid] });
            }
        }

        disk.Fill();
        for (int at = 0, met = 0; met == at; at++)
        {
            // The host ends at any call of a start that finds the disk full.
            SimulatedDisk other = disk.AfterKill();
            other.Capacity = disk.Capacity;
            other.Faults = (_, number) => number == at && (met = at + 1) > 0 ? new Fault.PowerCut() : null;
            _ = Record.Exception(() => Open(other, out _).Dispose());
            SimulatedDisk ended = other.AfterPowerCut(new Random(at));
            using VolumeJournal opened = Open(ended, out Dictionary<Guid, VolumeRecord> left);
            Assert.Equal(volumes[20..].Order(), left.Keys.Order());
            Assert.Null(VolumeJournal.FindDamage(new DataFiles(ended, Root, isSynced: true)));
        }

        using (VolumeJournal journal = Open(disk, out Dictionary<Guid, VolumeRecord> records))
        {
            Assert.Equal(volumes[20..].Order(), records.Keys.Order());
            foreach (Guid uuid in volumes[20..39])
            {
                journal.Append(new VolumeChange { Removed = [uuid] });
            }

            disk.Capacity = long.MaxValue;
            journal.Append(new VolumeChange { Set = [Volume(volumes[39], "renamed")] });
        }

        using VolumeJournal again = Open(disk, out Dictionary<Guid, VolumeRecord> last);
        Assert.Equal([(volumes[39], "renamed")], NamesIn(last));
    }

    /// <summary>The last lines are the ones of which nobody else knows, and the ones that a crash may have cut short.</summary>
    [Fact]
    public void No_change_of_a_bit_at_its_end_and_no_cut_takes_a_change_back_unnoticed()
    {
        SimulatedDisk disk = NewDisk();
        Guid[] volumes = [.. Enumerable.Range(1, 30).Select(static number => new Guid(number, 0, 0, new byte[8]))];
        using (VolumeJournal journal = Open(disk, out _))
        {
            // As many as fill more than a block, with a line across the end of one.
            foreach (Guid uuid in volumes)
            {
                journal.Append(new VolumeChange { Set = [Volume(uuid, "first")] });
                journal.Append(new VolumeChange { Set = [Volume(uuid, "then")] });
            }
        }

        string path = Path.Combine(Root, VolumeJournal.FileName);
        byte[] whole = disk.Content(path);
        int end = whole.AsSpan().LastIndexOfAnyExcept((byte)0) + 1;
        int from = whole.AsSpan(0, whole.AsSpan(0, end - 1).LastIndexOf((byte)'\n')).LastIndexOf((byte)'\n') + 1;
        Assert.True(end > 2 * 4096 && whole.Length > end + 4096, $"{end} of {whole.Length}");
        int noticed = 0;
        Assert.Equal(0, IsNoticed(whole, "nothing"));
        for (int bit = 8 * from; bit < 8 * (end + 16); bit++)
        {
            byte[] flipped = [.. whole];
            flipped[bit / 8] ^= (byte)(1 << (bit % 8));
            noticed += IsNoticed(flipped, $"bit {bit % 8} of byte {bit / 8}, the lines are {from} to {end}");
        }

        // Of the lines nearly all: an end of line that has become a zero is as good as one, and what is behind the end was never anything.
        Assert.InRange(noticed, (8 * (end - from)) - 4, 8 * (end - from));
        for (int length = 0; length < whole.Length; length += 512)
        {
            noticed += IsNoticed(whole[..length], $"cut at {length} of {end}");
        }

        int IsNoticed(byte[] content, string what)
        {
            SimulatedDisk left = disk.AfterKill();
            left.Damage(path, content);
            using VolumeJournal journal = Open(left, out Dictionary<Guid, VolumeRecord> records);
            bool isNoticed = VolumeJournal.FindDamage(new DataFiles(left, Root, isSynced: true)) is not null;
            Assert.True(isNoticed || (records.Count == volumes.Length && records.Values.All(static record => record.Name is "then")), what);
            return isNoticed ? 1 : 0;
        }
    }

    /// <summary>Each checkpoint of a lineage is based on the images of all before it.</summary>
    [Fact]
    public void Its_length_does_not_depend_on_how_deep_a_lineage_is_and_every_image_is_known()
    {
        const int Depth = 1500;
        SimulatedDisk disk = NewDisk();
        List<VolumeRecord> lineage = [.. Lineage(Depth)];
        using (VolumeJournal journal = Open(disk, out _))
        {
            foreach (VolumeRecord record in lineage.Take(Depth / 2))
            {
                journal.Append(new VolumeChange { Set = [record, Volume(lineage[0].Owner!.Value, "source") with { Images = record.Images }] });
            }
        }

        // What goes on is based on what was read.
        using (VolumeJournal journal = Open(disk, out Dictionary<Guid, VolumeRecord> records))
        {
            CheckImages(lineage.Take(Depth / 2), records);
            lineage.Skip(Depth / 2).ToList().ForEach(record => journal.Append(new VolumeChange { Set = [record] }));
        }

        using (VolumeJournal journal = Open(disk, out Dictionary<Guid, VolumeRecord> records))
        {
            CheckImages(lineage, records);
        }

        Assert.InRange(disk.Content(Path.Combine(Root, VolumeJournal.FileName)).Length / Depth, 300, 900);
    }

    /// <summary>A line that is damaged takes no image from what was built on it later, whether the journal began with it or not.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_damaged_line_takes_no_image_from_other_volumes(bool isRewritten)
    {
        const int Depth = 12;
        SimulatedDisk disk = NewDisk();
        VolumeRecord[] lineage = [.. Lineage(Depth)];
        using (VolumeJournal journal = Open(disk, out _))
        {
            Array.ForEach(lineage, record => journal.Append(new VolumeChange { Set = [record] }));
        }

        if (isRewritten)
        {
            Open(disk, out _).Dispose();
        }

        string path = Path.Combine(Root, VolumeJournal.FileName);
        byte[] whole = disk.Content(path);
        int lines = 0;
        int first = whole.AsSpan().IndexOf((byte)'\n') + 1;
        for (int start = first; whole.AsSpan(start).IndexOf((byte)'\n') is var length and >= 0; start += length + 1, lines++)
        {
            foreach (int at in (int[])[start, start + (length / 2), start + length - 1])
            {
                SimulatedDisk left = disk.AfterKill();
                byte[] damaged = [.. whole];
                damaged[at] ^= 1;
                left.Damage(path, damaged);
                using VolumeJournal journal = Open(left, out Dictionary<Guid, VolumeRecord> records);
                bool isNoticed = VolumeJournal.FindDamage(new DataFiles(left, Root, isSynced: true)) is not null;
                VolumeRecord[] missing = [.. lineage.Where(record => !records.ContainsKey(record.Uuid))];
                Assert.True(missing.Length <= (isRewritten ? 0 : 1), $"line {lines}: {missing.Length} are missing");
                Assert.True(isNoticed || missing.Length == 0, $"line {lines}");
                CheckImages(lineage.Except(missing), records);
                Assert.All(records.Values, static record => Assert.True(record is { Damage: null, Beneath: null }));
            }
        }

        Assert.Equal(Depth + 1, lines);
    }

    /// <summary>Two lines side by side: what is based on them cannot be known to be sound, and says so.</summary>
    [Fact]
    public void A_volume_of_whose_images_too_much_is_lost_says_so()
    {
        SimulatedDisk disk = NewDisk();
        VolumeRecord[] lineage = [.. Lineage(12)];
        using (VolumeJournal journal = Open(disk, out _))
        {
            Array.ForEach(lineage, record => journal.Append(new VolumeChange { Set = [record] }));
        }

        string path = Path.Combine(Root, VolumeJournal.FileName);
        byte[] damaged = disk.Content(path);
        string[] lines = System.Text.Encoding.Latin1.GetString(damaged).Split('\n');
        int start = lines.Take(2 + 5).Sum(static line => line.Length + 1);
        damaged[start] ^= 1;
        damaged[start + lines[2 + 5].Length + 1] ^= 1;
        disk.Damage(path, damaged);

        for (int opening = 0; opening < 2; opening++)
        {
            using VolumeJournal journal = Open(disk, out Dictionary<Guid, VolumeRecord> records);
            CheckImages(lineage[..5], records);
            Assert.All(lineage[..5], record => Assert.Null(records[record.Uuid].Damage));
            Assert.All(lineage[5..7], record => Assert.DoesNotContain(record.Uuid, records.Keys));
            Assert.All(lineage[7..], record => Assert.NotNull(records[record.Uuid].Damage));
        }
    }

    /// <summary>An image that is damaged and described again has two checksums, and each volume keeps the one that it was given.</summary>
    [Fact]
    public void An_image_that_is_described_again_takes_nothing_from_what_was_said_before()
    {
        SimulatedDisk disk = NewDisk();
        VolumeRecord[] first = [.. Lineage(4)];
        VolumeRecord[] second =
        [
            .. first.Select(static record => record with
            {
                Uuid = Guid.NewGuid(),
                Images = [.. record.Images.Select(static image => image.Name.StartsWith("0001", StringComparison.Ordinal) ? image with { Sha256 = new string('f', 64) } : image)],
            }),
        ];
        VolumeRecord[] all = [.. first[..3], .. second, first[3]];
        using (VolumeJournal journal = Open(disk, out _))
        {
            Array.ForEach(all, record => journal.Append(new VolumeChange { Set = [record] }));
        }

        for (int opening = 0; opening < 2; opening++)
        {
            using VolumeJournal journal = Open(disk, out Dictionary<Guid, VolumeRecord> records);
            CheckImages(all, records);
        }
    }

    [Fact]
    public void A_line_that_could_not_be_written_is_not_built_on()
    {
        SimulatedDisk disk = NewDisk();
        VolumeRecord[] lineage = [.. Lineage(8)];
        List<VolumeRecord> written = [];
        using (VolumeJournal journal = Open(disk, out _))
        {
            disk.ResetCalls();
            for (int i = 0; i < lineage.Length; i++)
            {
                int from = disk.Calls.Count;
                disk.Faults = (_, number) => i % 3 == 1 && number == from ? new Fault.Error(InputOutput) : null;
                if (Record.Exception(() => journal.Append(new VolumeChange { Set = [lineage[i]] })) is null)
                {
                    written.Add(lineage[i]);
                }
            }
        }

        disk.Faults = null;
        using VolumeJournal again = Open(disk, out Dictionary<Guid, VolumeRecord> records);
        Assert.Equal(5, written.Count);
        Assert.Equal(written.Count, records.Count);
        CheckImages(written, records);
    }

    private static IEnumerable<VolumeRecord> Lineage(int depth)
    {
        Guid owner = Guid.NewGuid();
        List<ImageChecksum> images = [];
        for (int i = 0; i < depth; i++)
        {
            string name = $"{i:D4}-{new string('a', 30)}.qcow2";
            images.Insert(0, new ImageChecksum(name, i, Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(BitConverter.GetBytes(i)))));
            yield return new VolumeRecord
            {
                Uuid = Guid.NewGuid(),
                CreatedAt = DateTimeOffset.UnixEpoch,
                Owner = owner,
                Top = name,
                IsTemplate = true,
                IsKept = true,
                Images = [.. images],
            };
        }
    }

    private static void CheckImages(IEnumerable<VolumeRecord> expected, Dictionary<Guid, VolumeRecord> records)
    {
        foreach (VolumeRecord record in expected)
        {
            Assert.True(record.Images.SequenceEqual(records[record.Uuid].Images), $"{record.Top}: {string.Join(", ", records[record.Uuid].Images.Select(static image => image.Name[..4]))}");
            Assert.Equal(record.Images.Count, records[record.Uuid].Images.Count);
        }
    }

    private static SimulatedDisk NewDisk()
    {
        SimulatedDisk disk = new();
        disk.MakeDirectory(Root);
        disk.SyncDirectory("/");
        disk.ResetCalls();
        return disk;
    }

    private static VolumeJournal Open(SimulatedDisk disk, out Dictionary<Guid, VolumeRecord> records)
    {
        DataFiles files = new(disk, Root, isSynced: true);
        VolumeJournal journal = VolumeJournal.Open(files, static _ => true, out records);
        files.SyncDirectory(Root);
        journal.SyncNames = () => files.SyncDirectory(Root);
        return journal;
    }

    private static bool Run(SimulatedDisk disk, Model model)
    {
        try
        {
            using VolumeJournal journal = Open(disk, out _);
            foreach (VolumeChange change in Model.Changes)
            {
                model.Begin(change);
                journal.Append(change);
                model.End(change);
            }

            return false;
        }
        catch (PowerCutException)
        {
            return true;
        }
    }

    private static VolumeRecord Volume(Guid uuid, string name) => new() { Uuid = uuid, Name = name, CreatedAt = DateTimeOffset.UnixEpoch };

    private static IEnumerable<(Guid Uuid, string? Name)> NamesIn(Dictionary<Guid, VolumeRecord> records) =>
        records.Values.Select(static record => (record.Uuid, record.Name)).OrderBy(static volume => volume.Uuid);

    /// <summary>What was made, and what may have been when the host ended meanwhile.</summary>
    private sealed class Model
    {
        private static readonly Guid[] Uuids = [.. Enumerable.Range(1, 4).Select(static number => new Guid(number, 0, 0, new byte[8]))];
        private readonly Dictionary<Guid, string?> _made = [];
        private VolumeChange _underWay = new();

        public static IEnumerable<VolumeChange> Changes =>
        [
            .. Enumerable.Range(0, 12).Select(static i => i % 5 == 4
                ? new VolumeChange { Removed = [Uuids[i % 4]] }
                : new VolumeChange { Set = [Volume(Uuids[i % 4], $"{i}{(i == 11 ? "" : Long)}")] }),
        ];

        public void Begin(VolumeChange change) => _underWay = change;

        public void End(VolumeChange change)
        {
            Apply(_made, change);
            Forget();
        }

        public void Forget() => _underWay = new VolumeChange();

        public void Check(Dictionary<Guid, VolumeRecord> records, string what)
        {
            Dictionary<Guid, string?> other = new(_made);
            Apply(other, _underWay);
            string found = Say(records.ToDictionary(static entry => entry.Key, static entry => entry.Value.Name));
            Assert.True(((string[])[Say(_made), Say(other)]).Contains(found, StringComparer.Ordinal), $"{what}: {found}, not {Say(_made)} or {Say(other)}");
        }

        private static void Apply(Dictionary<Guid, string?> volumes, VolumeChange change)
        {
            foreach (VolumeRecord record in change.Set)
            {
                volumes[record.Uuid] = record.Name;
            }

            foreach (Guid removed in change.Removed)
            {
                volumes.Remove(removed);
            }
        }

        private static string Say(Dictionary<Guid, string?> volumes) =>
            string.Join(' ', volumes.OrderBy(static entry => entry.Key).Select(static entry => $"{entry.Key:N}={entry.Value?.TrimEnd('x')}"));
    }
}

using System.Buffers.Binary;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>What the disk changes or does not read of the log: it is found, and costs nothing else.</summary>
public sealed class PublicationLogDamageTests : PublicationLogTest
{
    /// <summary>The disk changes a byte between the writing of a record and the making of its files: of each field of a record, and of its pages.</summary>
    /// <remarks>Not in the SVM lab: files, of which KVM knows nothing.</remarks>
    [Fact]
    [Trait("Lab", "TooLong")]
    public async Task A_byte_that_changes_before_there_are_files_is_found_and_never_gets_a_checksum()
    {
        using SyntheticGuest guest = new(115);
        HashSet<int> places = [];
        int damaged = 0;
        for (int step = 0; ; step++)
        {
            using TestDirectory folder = new();
            SnapshotDirectory directory = OpenAt(folder.Path, threshold: 1);
            await SaveAsync(directory, guest, 0, 1, 2);
            await directory.Preparing.Guarded();
            string path = Path.Combine(folder.Path, LogFormat.Name);
            using KvmSnapshot snapshot = guest.CapturePages(3, 4, 90);
            byte[] before = await File.ReadAllBytesAsync(path);
            Guid broken = await SaveAsync(directory, snapshot);
            byte[] expected = guest.Memory.ToArray();
            byte[] after = await File.ReadAllBytesAsync(path);
            int start = before.AsSpan().CommonPrefixLength(after) / LogFormat.Block * LogFormat.Block;

            // Pages 5 alone; builds on what is to be damaged. And one of another guest, which does not.
            (Guid dependent, byte[] more) = await SaveAsync(directory, guest, 5);
            using SyntheticGuest stranger = new(116);
            (Guid other, byte[] others) = await SaveAsync(directory, stranger, 7, 8);
            int length = after.AsSpan().LastIndexOfAnyExcept((byte)0) + 1 - start;

            // All of the first block's fields, and some bytes of the index, the state and each page.
            int place = step < 70 ? step * 2 : 140 + (step - 70) * 199;
            if (place >= length)
            {
                await directory.DisposeAsync();
                break;
            }

            using (FileStream log = new(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
            {
                log.Position = start + place;
                log.WriteByte((byte)(after[start + place] ^ (1 << (step % 8))));
            }

            directory.Settle();
            Assert.Equal(0, directory.Pending);
            for (int opening = 0; opening < 2; opening++)
            {
                await AssertSoundAsync(directory, other, others);
                Exception? error = await Record.ExceptionAsync(() => directory.VerifyAsync(broken));
                if (error is null)
                {
                    // What is not read again does no harm.
                    Assert.InRange(place, 0, LogFormat.Block - 1);
                    await AssertSoundAsync(directory, broken, expected);
                    await AssertSoundAsync(directory, dependent, more);
                }
                else
                {
                    damaged++;
                    SnapshotFileException damage = Assert.IsType<SnapshotFileException>(error);
                    Assert.Contains(broken, damage.Snapshots);
                    Assert.Contains(dependent, damage.Snapshots);
                    Assert.DoesNotContain(other, damage.Snapshots);
                    Assert.True(opening == 1 || damage.Message.Contains($"the record of snapshot {broken:D}", StringComparison.Ordinal), damage.Message);
                    await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(dependent));
                }

                await directory.DisposeAsync();
                directory = await OpenDirectoryAsync(folder.Path);
            }

            await directory.DisposeAsync();
        }

        Assert.InRange(damaged, 50, int.MaxValue);
    }

    [Fact]
    public async Task What_is_lost_with_a_record_is_saved_again_with_what_needs_it()
    {
        using SyntheticGuest guest = new(117);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        byte[] before = await File.ReadAllBytesAsync(LogPath);
        (Guid broken, _) = await SaveAsync(directory, guest, 3, 4, 90);
        byte[] after = await File.ReadAllBytesAsync(LogPath);
        await FlipAsync(before.AsSpan().CommonPrefixLength(after) / LogFormat.Block * LogFormat.Block + 2 * LogFormat.Block);
        directory.Settle();
        await Assert.ThrowsAsync<SnapshotFileException>(() => directory.VerifyAsync(broken));

        (Guid next, byte[] memory) = await SaveAsync(directory, guest, 5);
        await AssertSoundAsync(directory, next, memory);
        await Assert.ThrowsAsync<SnapshotFileException>(() => directory.VerifyAsync(broken));
    }

    [Fact]
    public async Task A_record_that_the_host_does_not_read_keeps_nothing_else_from_getting_files()
    {
        using SyntheticGuest guest = new(118);
        using SyntheticGuest stranger = new(119);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid broken, _) = await SaveAsync(directory, guest, 3, 4, 90);
        (Guid sound, byte[] memory) = await SaveAsync(directory, stranger, 1, 2);
        int refusals = 0;
        FileSystem.Fault = (call, _) => call is "Read" && refusals++ < 3 ? -Libc.ErrnoInputOutput : null;
        Assert.Throws<StorageException>(() => directory.Settle());
        Assert.Throws<StorageException>(() => directory.Settle());
        directory.Settle();
        await AssertSoundAsync(directory, sound, memory);
        Assert.Contains(broken, (await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(broken))).Snapshots);
    }

    [Fact]
    public async Task A_log_that_the_host_does_not_read_is_there_the_next_time()
    {
        using SyntheticGuest guest = new(120);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        List<(Guid Id, byte[] Memory)> saved = [];
        for (int i = 0; i < 3; i++)
        {
            saved.Add(await SaveAsync(directory, guest, i, 30 + i));
        }

        using TestDirectory killed = Copy();
        for (int call = 0; ; call++)
        {
            using TestDirectory folder = new();
            foreach (string file in Directory.GetFiles(killed.Path))
            {
                File.Copy(file, Path.Combine(folder.Path, Path.GetFileName(file)));
            }

            FileSystem.Reset();
            int reads = 0;
            bool isReached = false;
            FileSystem.Fault = (name, _) =>
            {
                bool isIt = name is "Read" && reads++ == call;
                isReached |= isIt;
                return isIt ? -Libc.ErrnoInputOutput : null;
            };
            SnapshotDirectory? first = null;
            Exception? error = await Record.ExceptionAsync(async () => first = await OpenDirectoryAsync(folder.Path));
            FileSystem.Fault = null;
            if (first is not null)
            {
                await first.DisposeAsync();
            }

            await using SnapshotDirectory again = await OpenDirectoryAsync(folder.Path);
            foreach ((Guid id, byte[] memory) in saved)
            {
                await AssertSoundAsync(again, id, memory);
            }

            if (!isReached)
            {
                Assert.InRange(call, 8, int.MaxValue);
                break;
            }

            Assert.True(error is StorageException or null, error?.ToString());
        }
    }

    [Fact]
    public async Task A_record_whose_beginning_is_damaged_does_not_hide_those_behind_it()
    {
        using SyntheticGuest guest = new(121);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        List<(Guid Id, byte[] Memory, int Start)> saved = [];
        byte[] before = await File.ReadAllBytesAsync(LogPath);
        for (int i = 0; i < 4; i++)
        {
            using SyntheticGuest stranger = new(130 + i);
            (Guid id, byte[] memory) = await SaveAsync(directory, stranger, i, 30 + i);
            byte[] after = await File.ReadAllBytesAsync(LogPath);
            saved.Add((id, memory, before.AsSpan().CommonPrefixLength(after) / LogFormat.Block * LogFormat.Block));
            before = after;
        }

        for (int broken = 0; broken < 4; broken++)
        {
            byte[] damaged = [.. before];
            damaged[saved[broken].Start + 50] ^= 1;
            using TestDirectory killed = Copy(damaged);
            await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
            for (int i = 0; i < 4; i++)
            {
                if (i == broken)
                {
                    Assert.NotNull(await Record.ExceptionAsync(() => again.VerifyAsync(saved[i].Id)));
                }
                else
                {
                    await AssertSoundAsync(again, saved[i].Id, saved[i].Memory);
                }
            }
        }
    }

    [Fact]
    public async Task A_snapshot_that_was_lost_with_its_record_is_named_with_what_needs_it_and_can_be_deleted()
    {
        using SyntheticGuest guest = new(122);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        byte[] before = await File.ReadAllBytesAsync(LogPath);
        (Guid broken, _) = await SaveAsync(directory, guest, 3, 4, 90);
        byte[] log = await File.ReadAllBytesAsync(LogPath);
        int start = before.AsSpan().CommonPrefixLength(log) / LogFormat.Block * LogFormat.Block;
        (Guid dependent, _) = await SaveAsync(directory, guest, 5);
        log = await File.ReadAllBytesAsync(LogPath);
        log[start + 2 * LogFormat.Block] ^= 1;
        using TestDirectory killed = Copy(log);
        await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
        Assert.Contains(broken, again.List());
        SnapshotFileException damage = await Assert.ThrowsAsync<SnapshotFileException>(() => again.OpenAsync(broken));
        Assert.Equal((SnapshotFileError.Damaged, Path.Combine(killed.Path, LogFormat.Name)), (damage.Error, damage.Path));
        Assert.Equal(new[] { broken, dependent }.Order(), damage.Snapshots.Order());
        Assert.Contains($"{broken:D}", (await Assert.ThrowsAsync<SnapshotFileException>(() => again.OpenAsync(dependent))).Message, StringComparison.Ordinal);
        await again.DeleteAsync(broken);
        Assert.DoesNotContain(broken, again.List());
        await Assert.ThrowsAsync<ResourceNotFoundException>(() => again.VerifyAsync(broken));
    }

    /// <remarks>Not in the SVM lab: files, of which KVM knows nothing.</remarks>
    [Fact]
    [Trait("Lab", "TooLong")]
    public async Task Damage_in_the_log_is_found_and_costs_nothing_else()
    {
        using SyntheticGuest guest = new(113);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        List<(Guid Id, byte[] Memory)> saved = [];
        for (int i = 0; i < 3; i++)
        {
            saved.Add(await SaveAsync(directory, guest, i, 30 + i));
        }

        byte[] log = await File.ReadAllBytesAsync(LogPath);
        int end = log.AsSpan().LastIndexOfAnyExcept((byte)0) + 1;
        Random random = new(7);
        for (int flip = 0; flip < 150; flip++)
        {
            byte[] damaged = [.. log];
            int place = flip % 3 == 0 ? random.Next(2 * LogFormat.Block) : random.Next(2 * LogFormat.Block, end);
            damaged[place] ^= (byte)random.Next(1, 256);
            using TestDirectory killed = Copy(damaged);
            await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
            foreach ((Guid id, byte[] memory) in saved)
            {
                // Whole or not there at all, and whoever knows of it misses it.
                if (again.List().Contains(id))
                {
                    Exception? error = await Record.ExceptionAsync(() => again.VerifyAsync(id));
                    if (error is null)
                    {
                        await AssertSoundAsync(again, id, memory);
                    }
                    else
                    {
                        Assert.IsType<SnapshotFileException>(error);
                    }
                }
                else
                {
                    await Assert.ThrowsAsync<ResourceNotFoundException>(() => again.VerifyAsync(id));
                }
            }
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(LogFormat.Block)]
    [InlineData(Length)]
    public async Task What_was_put_behind_the_log_costs_nothing(int more)
    {
        using SyntheticGuest guest = new(156);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid id, byte[] memory) = await SaveAsync(directory, guest, 1, 2);
        Assert.Equal(1, directory.Pending);
        byte[] longer = new byte[Length + more];
        new Random(more).NextBytes(longer);
        (await File.ReadAllBytesAsync(LogPath)).CopyTo(longer, 0);
        using TestDirectory killed = Copy(longer);
        await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
        await AssertSoundAsync(again, id, memory);
    }

    /// <summary>Cut anywhere, also in a log whose last record is at the beginning of the file again: what is whole in front of the cut is there, and whoever brings the whole log has all.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_log_that_was_cut_off_has_what_is_whole_in_it(bool isAround)
    {
        const int Pages = 50;
        using SyntheticGuest guest = new(157);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        if (isAround)
        {
            // Then there is room for two more behind it, and for one in front.
            for (int i = 0; i < 2; i++)
            {
                await SaveRecordAsync(140 + i);
            }

            directory.Settle();
        }

        List<(Guid Id, byte[] Memory, int Start, int End)> saved = [];
        for (int i = 0; i < 3; i++)
        {
            saved.Add(await SaveRecordAsync(150 + i));
        }

        Assert.Equal(3, directory.Pending);
        Assert.Equal(isAround, saved[2].Start < saved[0].Start);
        byte[] log = await File.ReadAllBytesAsync(LogPath);
        int[] interesting = [LogFormat.RecordsStart, log.Length, .. saved.SelectMany(static record => (int[])[record.Start, record.Start + LogFormat.Block, record.End])];
        foreach (int cut in interesting.SelectMany(static place => (int[])[place - 1, place, place + 1]).Where(cut => cut < log.Length).Distinct())
        {
            using TestDirectory killed = Copy(log[..cut]);
            string path = Path.Combine(killed.Path, LogFormat.Name);
            await using (SnapshotDirectory again = await OpenDirectoryAsync(killed.Path))
            {
                // The file, and the record that the cut goes through.
                Assert.Equal(1 + saved.Count(record => record.Start + LogFormat.Block <= cut && cut < record.End), again.DamageFound.Count);
                Assert.All(again.DamageFound, damage => Assert.Equal(path, damage.Path));
                foreach ((Guid id, byte[] memory, int start, int end) in saved)
                {
                    if (end <= cut)
                    {
                        await AssertSoundAsync(again, id, memory);
                    }
                    else if (start + LogFormat.Block <= cut)
                    {
                        Assert.Contains(id, (await Assert.ThrowsAsync<SnapshotFileException>(() => again.OpenAsync(id))).Snapshots);
                    }
                    else
                    {
                        await Assert.ThrowsAsync<ResourceNotFoundException>(() => again.OpenAsync(id));
                    }
                }

                (Guid next, byte[] content) = await SaveAsync(again, guest, 7, 8);
                await AssertSoundAsync(again, next, content);
            }

            await File.WriteAllBytesAsync(path, log);
            await using SnapshotDirectory whole = await OpenDirectoryAsync(killed.Path);
            Assert.Empty(whole.DamageFound);
            foreach ((Guid id, byte[] memory, _, _) in saved)
            {
                await AssertSoundAsync(whole, id, memory);
            }
        }

        async Task<(Guid Id, byte[] Memory, int Start, int End)> SaveRecordAsync(int seed)
        {
            using SyntheticGuest stranger = new(seed);
            (Guid id, byte[] memory) = await SaveAsync(directory, stranger, [.. Enumerable.Range(0, Pages)]);
            byte[] after = await File.ReadAllBytesAsync(LogPath);
            int start = FirstRecordOf(id, after);
            int end = start + (int)BinaryPrimitives.ReadInt64LittleEndian(after.AsSpan(start + 40));
            return (id, memory, start, end);
        }

        static int FirstRecordOf(Guid id, byte[] log)
        {
            byte[] name = id.ToByteArray(bigEndian: true);
            int start = LogFormat.RecordsStart;
            while (!log.AsSpan(start + 48, name.Length).SequenceEqual(name))
            {
                start += LogFormat.Block;
            }

            return start;
        }
    }

    /// <summary>The power went out before the names of files were on the disk, and the states that refer to their layers are damaged: what is in the log refers to them as well.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_layer_under_its_temporary_name_that_a_record_needs_is_kept(bool isLogUnreadableFirst)
    {
        using SyntheticGuest guest = new(123);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid id, byte[] memory) = await SaveAsync(directory, guest, 7);
        using TestDirectory killed = Copy();
        foreach (string path in killed.Files.Select(name => Path.Combine(killed.Path, name)))
        {
            byte[] file = await File.ReadAllBytesAsync(path);
            file[200] ^= (byte)(path.EndsWith(StateFile.Suffix, StringComparison.Ordinal) ? 1 : 0);
            await File.WriteAllBytesAsync(path, file);
            File.Move(path, path + FileStore.TemporarySuffix);
        }

        string log = Path.Combine(killed.Path, LogFormat.Name);
        byte[] sound = await File.ReadAllBytesAsync(log);
        if (isLogUnreadableFirst)
        {
            // Nobody knows what needs the layers.
            await File.WriteAllBytesAsync(log, new byte[sound.Length]);
            IReadOnlyList<string> before = killed.Files;
            await using (SnapshotDirectory first = await OpenDirectoryAsync(killed.Path))
            {
                Assert.Equal(log, Assert.Single(first.DamageFound).Path);
            }

            Assert.Equal(before, killed.Files);
            await File.WriteAllBytesAsync(log, sound);
        }

        await using (SnapshotDirectory again = await OpenDirectoryAsync(killed.Path))
        {
            Assert.Equal([id], again.List());
            await AssertSoundAsync(again, id, memory);
        }

        Assert.DoesNotContain(killed.Files, static name => name.EndsWith(FileStore.TemporarySuffix, StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_is_deleted_while_temporary_files_are_kept_does_not_come_back()
    {
        using SyntheticGuest guest = new(124);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        Guid[] ids = [.. directory.List()];
        using TestDirectory killed = Copy(new byte[Length]);
        foreach (Guid id in ids)
        {
            File.Copy(killed.StateOf(id), killed.StateOf(id) + FileStore.TemporarySuffix);
        }

        await using (SnapshotDirectory first = await OpenDirectoryAsync(killed.Path))
        {
            await first.DeleteAsync(ids[0]);
        }

        await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
        Assert.Equal([ids[1]], again.List());
    }

    private async Task FlipAsync(int place)
    {
        await using FileStream log = new(LogPath, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        log.Position = place;
        int value = log.ReadByte();
        log.Position = place;
        log.WriteByte((byte)(value ^ 1));
    }
}

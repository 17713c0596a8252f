using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Snapshots that are saved in the log, and get files of their own later.</summary>
public sealed class PublicationLogTests : SnapshotFilesTest
{
    private const int Length = 1 << 20;
    private const int Longer = 2 * Length;

    private TestSpace? Space { get; set; }

    private string LogPath => Path.Combine(Folder.Path, LogFormat.Name);

    [Fact]
    public async Task A_snapshot_in_the_log_has_no_files_until_somebody_wants_them()
    {
        using SyntheticGuest guest = new(101);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        IReadOnlyList<string> before = Folder.Files;
        FileSystem.Reset();
        (Guid id, byte[] memory) = await SaveAsync(directory, guest, 3, 4, 5, 90);

        Assert.Equal(["Write", "SyncData"], FileSystem.Calls.Where(static call => call is not ("OpenRead" or "Stat")));
        Assert.Equal(before, Folder.Files);
        Assert.Contains(id, directory.List());
        Assert.Equal(1, directory.Pending);

        IReadOnlyList<string> files = directory.GetFiles(id);
        Assert.All(files, name => Assert.True(File.Exists(Path.Combine(Folder.Path, name)), name));
        Assert.Equal(0, directory.Pending);
        await AssertSoundAsync(directory, id, memory);
    }

    [Fact]
    public async Task What_is_in_the_log_and_what_is_not_give_the_same_files()
    {
        using SyntheticGuest guest = new(102);
        using TestDirectory elsewhere = new();
        Guid[] ids = [Guid.NewGuid(), Guid.NewGuid(), Guid.NewGuid()];
        SnapshotDirectory plain = await OpenDirectoryAsync(elsewhere.Path);
        SnapshotDirectory directory = await OpenWithLogAsync(guest);
        List<Guid> others = [.. directory.List()];
        foreach (Guid id in ids)
        {
            using KvmSnapshot snapshot = guest.CapturePages(7, 8, 9, 200, 899);
            await directory.SaveAsync(id, snapshot);
            await plain.SaveAsync(id, snapshot);
        }

        Assert.Equal(3, directory.Pending);
        await directory.DisposeAsync();
        await plain.DisposeAsync();
        Assert.Equal(elsewhere.Files, Folder.Files.Where(name => others.TrueForAll(id => !name.StartsWith($"{id:D}", StringComparison.Ordinal))));
        Assert.All(elsewhere.Files, name => Assert.Equal(File.ReadAllBytes(Path.Combine(elsewhere.Path, name)), File.ReadAllBytes(Path.Combine(Folder.Path, name))));
    }

    [Fact]
    public async Task Closing_leaves_no_log_and_all_files()
    {
        using SyntheticGuest guest = new(103);
        SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid id, byte[] memory) = await SaveAsync(directory, guest, 1, 500);
        await directory.DisposeAsync();
        Assert.False(File.Exists(LogPath));

        await using SnapshotDirectory again = await OpenDirectoryAsync();
        await AssertSoundAsync(again, id, memory);
    }

    [Fact]
    public async Task A_host_that_is_killed_finds_what_was_in_its_log()
    {
        using SyntheticGuest guest = new(104);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        List<(Guid Id, byte[] Memory)> saved = [];
        for (int i = 0; i < 5; i++)
        {
            saved.Add(await SaveAsync(directory, guest, i, 100 + i, 300));
        }

        using TestDirectory killed = Copy();
        await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
        Assert.False(File.Exists(Path.Combine(killed.Path, LogFormat.Name)));
        Assert.Equal(directory.List().Order(), again.List().Order());
        foreach ((Guid id, byte[] memory) in saved)
        {
            await AssertSoundAsync(again, id, memory);
        }
    }

    [Fact]
    public async Task A_record_that_is_torn_anywhere_was_not_saved_and_those_before_it_were()
    {
        using SyntheticGuest guest = new(105);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid first, byte[] memory) = await SaveAsync(directory, guest, 1, 2, 3);
        byte[] before = await File.ReadAllBytesAsync(LogPath);
        (Guid second, _) = await SaveAsync(directory, guest, 3, 4);
        byte[] after = await File.ReadAllBytesAsync(LogPath);
        int start = before.AsSpan().CommonPrefixLength(after) / 512 * 512;
        int sectors = (after.AsSpan().LastIndexOfAnyExcept((byte)0) - start) / 512 + 1;
        Random random = new(1);
        for (int lost = 0; lost < sectors; lost++)
        {
            if (before.AsSpan(start + lost * 512, 512).SequenceEqual(after.AsSpan(start + lost * 512, 512)))
            {
                continue;
            }

            // This sector is missing, and any others.
            byte[] torn = [.. after];
            before.AsSpan(start + lost * 512, 512).CopyTo(torn.AsSpan(start + lost * 512));
            for (int other = random.Next(1, 8); other < sectors; other += random.Next(1, sectors))
            {
                before.AsSpan(start + other * 512, 512).CopyTo(torn.AsSpan(start + other * 512));
            }

            using TestDirectory killed = Copy(torn);
            await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
            Assert.DoesNotContain(second, again.List());
            await AssertSoundAsync(again, first, memory);
        }
    }

    /// <remarks>Not in the SVM lab: files, of which KVM knows nothing.</remarks>
    [Fact]
    [Trait("Lab", "TooLong")]
    public async Task The_log_is_used_over_and_over()
    {
        using SyntheticGuest guest = new(106);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        List<(Guid Id, byte[] Memory)> saved = [];
        Random random = new(6);
        for (int i = 0; i < 60; i++)
        {
            int[] pages = [.. Enumerable.Range(0, random.Next(1, 40)).Select(_ => random.Next(SyntheticGuest.Pages)).Distinct()];
            saved.Add(await SaveAsync(directory, guest, pages));
            if (i % 7 == 6)
            {
                // Whoever comes now finds all of them, wherever in the file they lie.
                using TestDirectory killed = Copy();
                await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
                foreach ((Guid id, byte[] memory) in saved.TakeLast(8))
                {
                    await AssertSoundAsync(again, id, memory);
                }
            }

            if (random.Next(5) == 0)
            {
                directory.Settle();
            }
        }

        Assert.Equal(Length, new FileInfo(LogPath).Length);
        Assert.Equal(directory.List().Count, saved.Count + 2);
        foreach ((Guid id, byte[] memory) in saved)
        {
            await AssertSoundAsync(directory, id, memory);
        }
    }

    [Fact]
    public async Task What_is_deleted_does_not_come_back_from_the_log()
    {
        using SyntheticGuest guest = new(107);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid first, _) = await SaveAsync(directory, guest, 1, 2, 3);
        (Guid second, byte[] memory) = await SaveAsync(directory, guest, 3, 4);
        await directory.DeleteAsync(first);
        Assert.DoesNotContain(first, directory.List());
        await AssertSoundAsync(directory, second, memory);

        using TestDirectory killed = Copy();
        await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
        Assert.DoesNotContain(first, again.List());
        await AssertSoundAsync(again, second, memory);
    }

    [Fact]
    public async Task What_builds_on_layers_in_the_log_is_saved_with_them()
    {
        using SyntheticGuest guest = new(108);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        await SaveAsync(directory, guest, 1, 2, 3);

        // Too much for the log: its file refers to what is in there.
        (Guid large, byte[] memory) = await SaveAsync(directory, guest, [.. Enumerable.Range(10, 200)]);
        Assert.Equal(0, directory.Pending);
        await AssertSoundAsync(directory, large, memory);
    }

    [Fact]
    public async Task A_full_disk_leaves_what_is_in_the_log_where_it_is()
    {
        using SyntheticGuest guest = new(109);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid first, byte[] memory) = await SaveAsync(directory, guest, 1, 2, 3);
        FileSystem.Fault = static (call, _) => call is "Create" ? -Libc.ErrnoNoSpace : null;
        StorageException full = await Assert.ThrowsAsync<StorageException>(() => directory.OpenAsync(first));
        Assert.True(full.IsFull);

        // More go there as long as there is room.
        (Guid second, byte[] more) = await SaveAsync(directory, guest, 5, 6);
        Assert.Equal(2, directory.Pending);
        using (TestDirectory killed = Copy())
        {
            SnapshotDirectory starting = await OpenDirectoryAsync(killed.Path);
            Assert.Equal(directory.List().Order(), starting.List().Order());
            Assert.Equal(2, starting.Pending);
            await starting.DisposeAsync();
            FileSystem.Fault = null;
            await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
            Assert.Equal(0, again.Pending);
            await AssertSoundAsync(again, first, memory);
            await AssertSoundAsync(again, second, more);
        }

        await AssertSoundAsync(directory, first, memory);
        await AssertSoundAsync(directory, second, more);
    }

    [Theory]
    [InlineData("Write")]
    [InlineData("SyncData")]
    public async Task A_log_that_cannot_be_written_to_is_given_up(string broken)
    {
        using SyntheticGuest guest = new(110);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid first, byte[] memory) = await SaveAsync(directory, guest, 1, 2, 3);
        string log = ReadLogHeader();
        using KvmSnapshot snapshot = guest.CapturePages(1, 2, 4);
        Guid failed = Guid.NewGuid();
        FileSystem.Fault = (call, _) => string.Equals(call, broken, StringComparison.Ordinal) ? -Libc.ErrnoInputOutput : null;
        await Assert.ThrowsAsync<StorageException>(() => directory.SaveAsync(failed, snapshot));
        FileSystem.Fault = null;
        Assert.DoesNotContain(failed, directory.List());

        Guid second = await SaveAsync(directory, snapshot);
        Assert.Equal(0, directory.Pending);

        // It may have a successor by now.
        await directory.Preparing.Guarded();
        Assert.False(File.Exists(LogPath) && string.Equals(ReadLogHeader(), log, StringComparison.Ordinal));
        await AssertSoundAsync(directory, first, memory);
        await AssertSoundAsync(directory, second, guest.Memory.ToArray());
    }

    [Fact]
    public async Task Making_files_can_fail_at_any_call_and_is_repeated()
    {
        using SyntheticGuest guest = new(111);
        for (int call = 0; ; call++)
        {
            await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
            (Guid first, byte[] memory) = await SaveAsync(directory, guest, 1, 2, 3);
            (Guid second, byte[] more) = await SaveAsync(directory, guest, 3, 4);
            FileSystem.Reset();
            bool isReached = false;
            FileSystem.Fault = (_, number) =>
            {
                isReached |= number == call;
                return number == call ? -Libc.ErrnoInputOutput : null;
            };
            Exception? error = Record.Exception(() => directory.Settle());
            FileSystem.Fault = null;
            using (TestDirectory killed = Copy())
            {
                await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
                await AssertSoundAsync(again, first, memory);
                await AssertSoundAsync(again, second, more);
            }

            await AssertSoundAsync(directory, first, memory);
            await AssertSoundAsync(directory, second, more);
            foreach (Guid id in directory.List())
            {
                await directory.DeleteAsync(id);
            }

            await directory.Collecting.Guarded();
            await directory.DisposeAsync();
            Assert.Empty(Folder.Files);
            if (!isReached)
            {
                Assert.InRange(call, 12, int.MaxValue);
                break;
            }

            // A record that could not be read is read again at once, when those before it have their files.
            Assert.True(error is StorageException or null, error?.ToString());
        }
    }

    [Fact]
    public async Task A_log_that_cannot_be_made_costs_nobody_anything()
    {
        using SyntheticGuest guest = new(112);
        await using SnapshotDirectory directory = await OpenAsync(threshold: 1);
        FileSystem.Fault = (call, _) => call is "Create" && File.Exists(Path.Combine(Folder.Path, "lock")) && Folder.Files.Any(static name => name.EndsWith(".state", StringComparison.Ordinal))
            ? -Libc.ErrnoNoSpace
            : null;
        (Guid id, byte[] memory) = await SaveAsync(directory, guest, 1);
        await directory.Preparing.Guarded();
        FileSystem.Fault = null;
        Assert.False(File.Exists(LogPath));
        Assert.False(File.Exists(LogPath + ".tmp"));
        await AssertSoundAsync(directory, id, memory);
        (Guid second, byte[] more) = await SaveAsync(directory, guest, 2);
        await AssertSoundAsync(directory, second, more);
    }

    [Fact]
    public async Task A_log_that_somebody_cuts_off_keeps_nobody_from_closing_the_directory()
    {
        using SyntheticGuest guest = new(114);
        SnapshotDirectory directory = await OpenWithLogAsync(guest);
        Guid[] before = [.. directory.List()];
        (Guid lost, _) = await SaveAsync(directory, guest, 1, 2, 3);
        await using (FileStream log = new(LogPath, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            log.SetLength(LogFormat.RecordsStart);
        }

        directory.Settle();
        await Assert.ThrowsAsync<SnapshotFileException>(() => directory.VerifyAsync(lost));
        await directory.DisposeAsync();

        await using SnapshotDirectory again = await OpenDirectoryAsync();
        Assert.Equal(before.Append(lost).Order(), again.List().Order());
        await Assert.ThrowsAsync<SnapshotFileException>(() => again.VerifyAsync(lost));
        await again.DeleteAsync(lost);
        Assert.Equal(before.Order(), again.List().Order());
    }

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

    [Fact]
    public async Task A_file_system_that_refuses_writes_past_the_page_cache_has_no_log()
    {
        using SyntheticGuest guest = new(113);
        await using SnapshotDirectory directory = await OpenAsync(threshold: 1);
        bool isOpen = false;
        FileSystem.Fault = (call, _) =>
        {
            isOpen |= call is "OpenDirect";
            return isOpen && call is "Write" ? -Libc.ErrnoInvalid : null;
        };
        (Guid id, byte[] memory) = await SaveAsync(directory, guest, 1);
        await directory.Preparing.Guarded();
        FileSystem.Fault = null;
        Assert.True(isOpen);
        Assert.False(File.Exists(LogPath));
        (Guid second, byte[] more) = await SaveAsync(directory, guest, 2);
        await directory.Preparing.Guarded();
        Assert.False(File.Exists(LogPath));
        await AssertSoundAsync(directory, id, memory);
        await AssertSoundAsync(directory, second, more);
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

    [Fact]
    public async Task What_was_in_the_log_for_a_while_gets_its_files()
    {
        using SyntheticGuest guest = new(114);
        ManualTimeProvider time = new();
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest, time);
        (Guid id, byte[] memory) = await SaveAsync(directory, guest, 1, 2);
        Task settling = directory.Settling;
        Assert.False(settling.IsCompleted);
        while (!settling.IsCompleted)
        {
            time.Advance(TimeSpan.FromMilliseconds(50));
            await Task.Yield();
        }

        await settling.Guarded();
        Assert.Equal(0, directory.Pending);
        await AssertSoundAsync(directory, id, memory);
    }

    [Fact]
    public async Task A_log_that_was_too_short_for_a_burst_is_made_longer_when_it_is_empty()
    {
        using SyntheticGuest guest = new(150);
        SnapshotDirectory directory = await OpenWithLogAsync(guest);
        List<(Guid Id, byte[] Memory)> saved = [await SaveAsync(directory, guest, 1)];
        directory.Settle();
        directory.LengthenIfWorthIt();
        await directory.Preparing.Guarded();
        Assert.Equal(Length, new FileInfo(LogPath).Length);

        saved.AddRange(await BurstAsync(directory, guest));
        directory.LengthenIfWorthIt();
        await directory.Preparing.Guarded();
        Assert.Equal(Length, new FileInfo(LogPath).Length);
        directory.Settle();
        directory.LengthenIfWorthIt();
        await directory.Preparing.Guarded();
        Assert.Equal(Longer, new FileInfo(LogPath).Length);

        // It is long enough for twice as much, which is found in it.
        saved.AddRange(await BurstAsync(directory, guest));
        saved.AddRange(await BurstAsync(directory, guest));
        Assert.Equal(10, directory.Pending);
        using (TestDirectory killed = Copy())
        {
            await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
            foreach ((Guid id, byte[] memory) in saved)
            {
                await AssertSoundAsync(again, id, memory);
            }
        }

        // And no longer one is made.
        directory.Settle();
        directory.LengthenIfWorthIt();
        await directory.Preparing.Guarded();
        Assert.Equal(Longer, new FileInfo(LogPath).Length);
        await directory.DisposeAsync();
        Assert.False(File.Exists(LogPath));
        Assert.DoesNotContain(Folder.Files, static name => name.EndsWith(".tmp", StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_is_saved_while_a_longer_log_is_made_gets_its_files_before_that_takes_the_place()
    {
        using SyntheticGuest guest = new(151);
        ManualTimeProvider time = new();
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest, time);
        List<(Guid Id, byte[] Memory)> saved = await BurstAsync(directory, guest);
        directory.Settle();
        TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource released = new(TaskCreationOptions.RunContinuationsAsynchronously);
        FileSystem.Fault = (call, _) =>
        {
            if (call is "Create" && reached.TrySetResult())
            {
                released.Task.Wait();
            }

            return null;
        };
        directory.LengthenIfWorthIt();
        await reached.Task.Guarded();
        saved.Add(await SaveAsync(directory, guest, 7, 8));
        released.SetResult();
        Task preparing = directory.Preparing;
        while (!preparing.IsCompleted)
        {
            if (new FileInfo(LogPath).Length != Length)
            {
                Assert.Equal(0, directory.Pending);
            }

            time.Advance(TimeSpan.FromMilliseconds(50));
            await Task.Yield();
        }

        FileSystem.Fault = null;
        Assert.Equal((Longer, 0), (new FileInfo(LogPath).Length, directory.Pending));
        saved.Add(await SaveAsync(directory, guest, 9));
        using TestDirectory killed = Copy();
        await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
        foreach ((Guid id, byte[] memory) in saved)
        {
            await AssertSoundAsync(directory, id, memory);
            await AssertSoundAsync(again, id, memory);
        }
    }

    [Fact]
    public async Task Making_a_longer_log_can_fail_at_any_call_and_costs_nobody_anything()
    {
        int failed = 0;
        bool isReached = true;
        for (int call = 0; isReached; call++)
        {
            using SyntheticGuest guest = new(152);
            SnapshotDirectory directory = await OpenWithLogAsync(guest);
            List<(Guid Id, byte[] Memory)> saved = await BurstAsync(directory, guest);
            directory.Settle();
            isReached = false;
            FileSystem.Reset();
            FileSystem.Fault = (_, number) =>
            {
                isReached |= number == call;
                return number == call ? -Libc.ErrnoInputOutput : null;
            };
            directory.LengthenIfWorthIt();
            await directory.Preparing.Guarded();
            FileSystem.Fault = null;
            failed += File.Exists(LogPath) && new FileInfo(LogPath).Length == Longer ? 0 : 1;
            saved.Add(await SaveAsync(directory, guest, 7, 8));
            using (TestDirectory killed = Copy())
            {
                await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
                foreach ((Guid id, byte[] memory) in saved)
                {
                    await AssertSoundAsync(again, id, memory);
                }
            }

            foreach (Guid id in directory.List())
            {
                await directory.DeleteAsync(id);
            }

            await directory.Collecting.Guarded();
            await directory.DisposeAsync();
            Assert.Empty(Folder.Files);
        }

        Assert.InRange(failed, 8, int.MaxValue);
    }

    [Fact]
    public async Task A_longer_log_is_made_when_there_is_room_to_spare()
    {
        using SyntheticGuest guest = new(153);
        Space = new TestSpace { Free = long.MaxValue };
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        await BurstAsync(directory, guest);
        directory.Settle();
        Space.Free = 2 * Longer - 1;
        directory.LengthenIfWorthIt();
        await directory.Preparing.Guarded();
        Assert.Equal((Length, 0L), (new FileInfo(LogPath).Length, Space.Reserved));

        // There is some later.
        Space.Free = long.MaxValue;
        await BurstAsync(directory, guest);
        directory.Settle();
        directory.LengthenIfWorthIt();
        await directory.Preparing.Guarded();
        Assert.Equal((Longer, 0L), (new FileInfo(LogPath).Length, Space.Reserved));
    }

    [Fact]
    public async Task Closing_does_not_wait_for_a_longer_log()
    {
        using SyntheticGuest guest = new(154);
        SnapshotDirectory directory = await OpenWithLogAsync(guest);
        await BurstAsync(directory, guest);
        directory.Settle();
        (Guid last, byte[] memory) = (default, []);
        directory.LengthenIfWorthIt();
        (last, memory) = await SaveAsync(directory, guest, 7, 8);

        // Time does not pass: it waits for the files of what was saved, or is done.
        await directory.DisposeAsync().AsTask().Guarded();
        Assert.DoesNotContain(Folder.Files, static name => name.StartsWith(LogFormat.Name, StringComparison.Ordinal));
        await using SnapshotDirectory again = await OpenDirectoryAsync();
        await AssertSoundAsync(again, last, memory);
    }

    [Fact]
    public async Task What_is_in_the_log_has_room_set_aside_for_its_files_until_it_has_them()
    {
        using SyntheticGuest guest = new(140);
        Space = new TestSpace { Free = long.MaxValue };
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        Assert.Equal(0, Space.Reserved);
        string[] before = [.. Folder.Files];
        (Guid id, byte[] memory) = await SaveAsync(directory, guest, 3, 4, 90);
        long reserved = Space.Reserved;
        directory.Settle();
        long used = Folder.Files.Except(before, StringComparer.Ordinal).Sum(name => LogFormat.Align(new FileInfo(Path.Combine(Folder.Path, name)).Length));
        Assert.InRange(reserved, used, used + 4 * LogFormat.Block);
        Assert.Equal(0, Space.Reserved);
        await AssertSoundAsync(directory, id, memory);
    }

    [Fact]
    public async Task The_room_of_the_log_is_given_to_snapshots_before_one_is_refused()
    {
        using SyntheticGuest guest = new(141);
        Space = new TestSpace { Free = 2 * Length + (1 << 20) };
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid first, byte[] memory) = await SaveAsync(directory, guest, 3, 4, 90);
        Space.Free = Space.Reserved;
        Space.Refused = () => Space.Free = File.Exists(LogPath) ? Space.Free : 100 << 10;
        using KvmSnapshot snapshot = guest.CapturePages(5, 6);
        Guid second = await SaveAsync(directory, snapshot);
        Assert.False(File.Exists(LogPath));
        Assert.Equal((0, 0L), (directory.Pending, Space.Reserved));
        await AssertSoundAsync(directory, first, memory);
        await AssertSoundAsync(directory, second, guest.Memory.ToArray());

        // Nothing is left to give.
        Space.Free = 0;
        Space.Refused = null;
        IReadOnlyList<string> files = Folder.Files;
        using KvmSnapshot third = guest.CapturePages(7);
        Assert.True((await Assert.ThrowsAsync<StorageException>(() => directory.SaveAsync(Guid.NewGuid(), third))).IsFull);
        Assert.Equal(files, Folder.Files);
        Space.Free = long.MaxValue;
        await AssertSoundAsync(directory, await SaveAsync(directory, third), guest.Memory.ToArray());
    }

    /// <remarks>Not in the SVM lab: files, of which KVM knows nothing.</remarks>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Trait("Lab", "TooLong")]
    public async Task A_fold_of_many_layers_gets_its_file_before_a_snapshot_needs_it(bool isRefused)
    {
        const int Snapshots = 100;
        using SyntheticGuest guest = new(143);
        Space = new TestSpace { Free = long.MaxValue };
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);

        // There is room for snapshots, and none for a fold.
        Space.Largest = isRefused ? 200 << 10 : long.MaxValue;
        int most = 0;
        List<(Guid Id, byte[] Memory)> saved = [];
        for (int i = 0; i < Snapshots; i++)
        {
            saved.Add(await SaveAsync(directory, guest, i, 200 + i));
            await directory.Folding.Guarded();
            most = Math.Max(most, directory.GetFiles(saved[^1].Id).Count);
            guest.Fold();
        }

        // A state, the fold, and what came after it.
        Assert.InRange(most, isRefused ? 90 : 60, isRefused ? 110 : 75);
        Assert.Equal(isRefused, directory.GetFiles(saved[^1].Id).Count > 60);
        foreach ((Guid id, byte[] memory) in saved)
        {
            await AssertSoundAsync(directory, id, memory);
        }

        using (TestDirectory killed = Copy())
        {
            await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
            foreach ((Guid id, byte[] memory) in saved)
            {
                await AssertSoundAsync(again, id, memory);
            }
        }

        foreach (Guid id in directory.List())
        {
            await directory.DeleteAsync(id);
        }

        await directory.Collecting.Guarded();
        await directory.DisposeAsync();
        Assert.Empty(Folder.Files);
    }

    [Theory]
    [InlineData("Interrupted", false)]
    [InlineData("Interrupted", true)]
    [InlineData("Short", false)]
    [InlineData("Short", true)]
    [InlineData("Torn", false)]
    [InlineData("Torn", true)]
    [InlineData("Slow", false)]
    [InlineData("Slow", true)]
    public async Task A_saving_goes_through_or_fails_whole_whatever_one_of_its_calls_does(string kind, bool isLogged)
    {
        int met = 0;
        bool isOver = false;
        for (int call = 0; !isOver; call++)
        {
            foreach (string name in Folder.Files)
            {
                File.Delete(Path.Combine(Folder.Path, name));
            }

            using SyntheticGuest guest = new(144);
            await using SnapshotDirectory directory = isLogged ? await OpenWithLogAsync(guest) : await OpenDirectoryAsync(Folder.Path);
            (Guid first, byte[] before) = await SaveAsync(directory, guest, 1, 2, 3);
            using KvmSnapshot snapshot = guest.CapturePages([.. Enumerable.Range(0, 60).Select(static page => page * 7)]);
            byte[] memory = guest.Memory.ToArray();
            TaskCompletionSource stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
            TaskCompletionSource released = new(TaskCreationOptions.RunContinuationsAsynchronously);
            int at = call;
            FileSystem.Reset();
            FileSystem.IsTearing = kind is "Torn";
            FileSystem.Fault = (name, number) =>
            {
                bool isIt = number == at;
                met += isIt ? 1 : 0;
                FileSystem.LongestTransfer = isIt && kind is "Short" ? LogFormat.Block : int.MaxValue;
                if (isIt && kind is "Slow" && (name is "Sync" or "SyncData" or "SyncDirectory" or "WriteBack"))
                {
                    stopped.SetResult();
                    released.Task.Wait();
                }

                return !isIt ? null : kind switch
                {
                    "Interrupted" when name is "Read" or "Write" or "Sync" or "SyncData" or "SyncDirectory" or "WriteBack" => -Libc.ErrnoInterrupted,
                    "Torn" when name is "Write" => -Libc.ErrnoInputOutput,
                    _ => null,
                };
            };
            Guid id = Guid.NewGuid();
            Task saving = Task.Run(() => directory.SaveAsync(id, snapshot));
            if (await Task.WhenAny(saving, stopped.Task).Guarded() == stopped.Task)
            {
                // Nobody else waits for the disk.
                await AssertSoundAsync(directory, first, before);
                Assert.False(saving.IsCompleted);
                released.SetResult();
            }

            Exception? error = await Record.ExceptionAsync(() => saving.Guarded());
            isOver = FileSystem.Calls.Count <= call;
            (FileSystem.Fault, FileSystem.LongestTransfer, FileSystem.IsTearing) = (null, int.MaxValue, false);
            Assert.True(error is null || (kind is "Torn" && error is StorageException), $"{kind} at call {call}: {error}");
            Assert.Equal(error is null, directory.List().Contains(id));
            using TestDirectory killed = Copy();
            await using SnapshotDirectory after = await OpenDirectoryAsync(killed.Path);
            await AssertSoundAsync(after, first, before);
            Guid saved = error is null ? id : await SaveAsync(directory, snapshot);
            await AssertSoundAsync(directory, saved, memory);
            if (error is null)
            {
                await AssertSoundAsync(after, id, memory);
            }
        }

        Assert.InRange(met, isLogged ? 2 : 12, int.MaxValue);
    }

    [Fact]
    public async Task A_log_is_made_when_there_is_room_to_spare()
    {
        using SyntheticGuest guest = new(142);
        Space = new TestSpace { Free = 2 * Length - 1 };
        await using SnapshotDirectory directory = await OpenAsync(threshold: 2);
        for (int i = 0; i < 5; i++)
        {
            await SaveAsync(directory, guest, i);
            await directory.Preparing.Guarded();
            Assert.False(File.Exists(LogPath));
        }

        Space.Free = long.MaxValue;
        for (int i = 0; i < 2; i++)
        {
            await SaveAsync(directory, guest, i);
            await directory.Preparing.Guarded();
        }

        Assert.True(File.Exists(LogPath));
        directory.Settle();
        Assert.Equal(0, Space.Reserved);
    }

    // More than a log of the first length takes before files are made of it.
    private static async Task<List<(Guid Id, byte[] Memory)>> BurstAsync(SnapshotDirectory directory, SyntheticGuest guest)
    {
        List<(Guid, byte[])> saved = [];
        for (int i = 0; i < 5; i++)
        {
            saved.Add(await SaveAsync(directory, guest, [.. Enumerable.Range(100 + 50 * i, 45)]));
        }

        return saved;
    }

    private static async Task AssertSoundAsync(SnapshotDirectory directory, Guid id, byte[] memory)
    {
        await directory.VerifyAsync(id).Guarded();
        using KvmSnapshot opened = await OpenAsync(directory, id);
        Assert.True(memory.AsSpan().SequenceEqual(SyntheticGuest.MemoryOf(opened)));
    }

    private static async Task<(Guid Id, byte[] Memory)> SaveAsync(SnapshotDirectory directory, SyntheticGuest guest, params int[] pages)
    {
        using KvmSnapshot snapshot = guest.CapturePages(pages);
        return (await SaveAsync(directory, snapshot), guest.Memory.ToArray());
    }

    private async Task FlipAsync(int place)
    {
        await using FileStream log = new(LogPath, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        log.Position = place;
        int value = log.ReadByte();
        log.Position = place;
        log.WriteByte((byte)(value ^ 1));
    }

    private Task<SnapshotDirectory> OpenAsync(int threshold, TimeProvider? time = null) => Task.FromResult(OpenAt(Folder.Path, threshold, time));

    private SnapshotDirectory OpenAt(string path, int threshold, TimeProvider? time = null) => SnapshotDirectory.Open(
        FileSystem,
        path,
        Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance,
        new PublicationLogOptions(time ?? new ManualTimeProvider()) { Length = Length, MaxLength = Longer, Threshold = threshold },
        Space,
        CancellationToken.None);

    // With a log, and two snapshots that were saved before there was one.
    private async Task<SnapshotDirectory> OpenWithLogAsync(SyntheticGuest guest, TimeProvider? time = null)
    {
        SnapshotDirectory directory = await OpenAsync(threshold: 2, time);
        await SaveAsync(directory, guest, 0, 1, 2, 3, 4, 5);
        await SaveAsync(directory, guest, 5, 6);
        await directory.Preparing.Guarded();
        Assert.True(File.Exists(LogPath));
        return directory;
    }

    private string ReadLogHeader() => Convert.ToHexString(File.ReadAllBytes(LogPath).AsSpan(0, LogFormat.Block));

    /// <summary>What a host that is killed now leaves.</summary>
    /// <param name="log">What is in its log, if not what is in it now.</param>
    private TestDirectory Copy(byte[]? log = null)
    {
        TestDirectory copy = new();
        foreach (string path in Directory.GetFiles(Folder.Path))
        {
            string name = Path.GetFileName(path);
            if (name is "lock")
            {
                // A start makes its own; this one is held.
                continue;
            }

            if (log is not null && name is LogFormat.Name)
            {
                File.WriteAllBytes(Path.Combine(copy.Path, name), log);
            }
            else
            {
                File.Copy(path, Path.Combine(copy.Path, name));
            }
        }

        return copy;
    }

    private sealed class TestSpace : IDiskSpace
    {
        private readonly Lock _lock = new();

        internal long Free { get; set; }

        internal long Largest { get; set; } = long.MaxValue;

        internal long Reserved { get; private set; }

        internal Action? Refused { get; set; }

        public IDisposable Reserve(long bytes)
        {
            lock (_lock)
            {
                if (Free - Reserved < bytes || bytes > Largest)
                {
                    // What was on the disk may go meanwhile.
                    Refused?.Invoke();
                    if (Free - Reserved < bytes || bytes > Largest)
                    {
                        throw new StorageException("disk", "full", isFull: true);
                    }
                }

                Reserved += bytes;
                return new Reservation(this, bytes);
            }
        }

        private sealed class Reservation(TestSpace space, long bytes) : IDisposable
        {
            public void Dispose()
            {
                lock (space._lock)
                {
                    space.Reserved -= bytes;
                }
            }
        }
    }
}

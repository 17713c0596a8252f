using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>A disk that is full, or fails, while snapshots are saved in the log and files are made of it.</summary>
public sealed class PublicationLogFaultTests : PublicationLogTest
{
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
            await AssertEmptiesAsync(directory);
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

        await AssertSoundAfterKillAsync(saved);
        await AssertEmptiesAsync(directory);
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
}

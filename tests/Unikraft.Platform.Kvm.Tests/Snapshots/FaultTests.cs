using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Each call to the disk fails in turn.</summary>
public sealed class FaultTests : SnapshotFilesTest
{
    [Theory]
    [InlineData(Libc.ErrnoNoSpace)]
    [InlineData(Libc.ErrnoQuota)]
    [InlineData(Libc.ErrnoInputOutput)]
    public async Task A_saving_that_fails_at_any_call_leaves_nothing_and_works_the_next_time(int errno)
    {
        using SyntheticGuest guest = new(51);
        using KvmSnapshot first = guest.CapturePages(1, 2, 3);
        using KvmSnapshot second = guest.CapturePages([.. Enumerable.Range(0, 80).Select(page => page * 5)]);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        await SaveAsync(directory, first);
        IReadOnlyList<string> before = Folder.Files;
        int failures = 0;
        for (int call = 0; ; call++)
        {
            Guid id = Guid.NewGuid();
            FileSystem.Reset();
            FileSystem.Fault = (_, number) => number == call ? -errno : null;
            Exception? error = await Record.ExceptionAsync(() => directory.SaveAsync(id, second));
            FileSystem.Fault = null;
            await directory.Collecting.Guarded();
            if (error is null)
            {
                // Beyond the last call.
                Assert.True(FileSystem.Calls.Count <= call, $"Call {call}, {FileSystem.Calls[Math.Min(call, FileSystem.Calls.Count - 1)]}, failed unheard.");
                await directory.DeleteAsync(id);
                break;
            }

            StorageException storage = Assert.IsType<StorageException>(error);
            Assert.Equal(errno != Libc.ErrnoInputOutput, storage.IsFull);
            Assert.StartsWith(Folder.Path, storage.Path, StringComparison.Ordinal);
            Assert.Contains(storage.Path, storage.Message, StringComparison.Ordinal);
            Assert.Equal(before, Folder.Files);
            Assert.DoesNotContain(id, directory.List());
            failures++;
        }

        Assert.InRange(failures, 12, int.MaxValue);
        Guid saved = await SaveAsync(directory, second);
        using KvmSnapshot opened = await OpenAsync(directory, saved);
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
    }

    [Fact]
    public async Task A_disk_that_stays_broken_leaves_nothing_that_outlives_the_next_opening()
    {
        using SyntheticGuest guest = new(52);
        using KvmSnapshot snapshot = guest.CapturePages(1, 2, 3);
        int calls;
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            FileSystem.Reset();
            Guid id = await SaveAsync(directory, snapshot);
            calls = FileSystem.Calls.Count;
            await directory.DeleteAsync(id);
        }

        Assert.InRange(calls, 12, int.MaxValue);
        for (int from = 0; from < calls; from++)
        {
            await using (SnapshotDirectory directory = await OpenDirectoryAsync())
            {
                Guid id = Guid.NewGuid();
                FileSystem.Reset();
                FileSystem.Fault = (_, number) => number >= from ? -Libc.ErrnoInputOutput : null;
                await Assert.ThrowsAsync<StorageException>(() => directory.SaveAsync(id, snapshot));
                FileSystem.Fault = null;
                Assert.DoesNotContain(id, directory.List());
                await directory.SaveAsync(id, snapshot);
                (await OpenAsync(directory, id)).Dispose();
                await directory.DeleteAsync(id);
                await directory.Collecting.Guarded();
            }

            await (await OpenDirectoryAsync()).DisposeAsync();
            Assert.Empty(Folder.Files);
        }
    }

    [Fact]
    public async Task An_opening_that_fails_at_any_call_is_an_error_and_works_the_next_time()
    {
        using SyntheticGuest guest = new(53);
        using KvmSnapshot snapshot = guest.Capture();
        Guid id;
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            id = await SaveAsync(directory, snapshot);
        }

        FileSystem.Reset();
        await (await OpenDirectoryAsync()).DisposeAsync();
        string[] scan = [.. FileSystem.Calls];
        Assert.Equal(["MakeDirectory", "SyncDirectory", "OpenLocked", "List", "OpenRead", "Stat", "Read", "Read"], scan);
        for (int call = 0; ; call++)
        {
            FileSystem.Reset();
            FileSystem.Fault = (_, number) => number == call ? -Libc.ErrnoInputOutput : null;
            Exception? error = await Record.ExceptionAsync(async () =>
            {
                await using SnapshotDirectory directory = await OpenDirectoryAsync();
                using KvmSnapshot opened = await OpenAsync(directory, id);
                Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
            });
            FileSystem.Fault = null;
            Assert.Equal(2, Folder.Files.Count);
            if (FileSystem.Calls.Count <= call)
            {
                Assert.Null(error);
                break;
            }

            // A state that cannot be read when the directory is opened costs the others nothing, and is tried again when it is needed.
            // One that cannot be read then is damage.
            Assert.Equal(call < 4, error is StorageException);
            Assert.Equal(call >= 4 && call < scan.Length, error is null);
            Assert.Equal(call >= scan.Length, error is SnapshotFileException);
        }
    }

    /// <summary>What the host ended in the middle of giving it its name.</summary>
    [Fact]
    public async Task Files_under_temporary_names_that_cannot_be_read_keep_no_directory_from_opening_and_are_looked_at_again()
    {
        using SyntheticGuest guest = new(55);
        using KvmSnapshot snapshot = guest.Capture();
        using SyntheticGuest other = new(56);
        using KvmSnapshot otherSnapshot = other.Capture();
        Guid named, unnamed;
        string[] files;
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            named = await SaveAsync(directory, snapshot);
            string[] before = [.. Folder.Files];
            unnamed = await SaveAsync(directory, otherSnapshot);
            files = [.. Folder.Files.Except(before, StringComparer.Ordinal)];
        }

        Assert.Equal(2, files.Length);
        int faults = 0;
        for (int call = 0; ; call++)
        {
            foreach (string file in files.Select(file => Path.Combine(Folder.Path, file)))
            {
                File.Move(file, file + FileStore.TemporarySuffix);
            }

            int seen = 0;
            int at = call;
            bool isReached = false;
            FileSystem.Fault = (name, _) =>
            {
                if (name is not ("OpenRead" or "Stat" or "Read") || seen++ != at)
                {
                    return null;
                }

                isReached = true;
                return -Libc.ErrnoInputOutput;
            };
            await using (SnapshotDirectory directory = await OpenDirectoryAsync())
            {
                FileSystem.Fault = null;
                using KvmSnapshot opened = await OpenAsync(directory, named);
                Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
            }

            await using (SnapshotDirectory directory = await OpenDirectoryAsync())
            {
                using KvmSnapshot opened = await OpenAsync(directory, unnamed);
                Assert.True(other.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
            }

            if (!isReached)
            {
                break;
            }

            faults++;
        }

        Assert.InRange(faults, 10, int.MaxValue);
    }

    [Fact]
    public async Task A_deletion_that_fails_at_any_call_can_be_repeated()
    {
        using SyntheticGuest guest = new(54);
        using KvmSnapshot snapshot = guest.Capture();
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        for (int call = 0; call < 3; call++)
        {
            Guid id = await SaveAsync(directory, snapshot);
            FileSystem.Reset();
            FileSystem.Fault = (_, number) => number == call ? -Libc.ErrnoInputOutput : null;
            Exception? error = await Record.ExceptionAsync(() => directory.DeleteAsync(id));
            FileSystem.Fault = null;

            // The first is an error and nothing has happened; the second is one though the snapshot is gone, for it may come back; the third is made up for.
            Assert.Equal(call < 2, error is StorageException);
            Assert.Equal(call == 0, directory.List().Contains(id));
            if (call == 0)
            {
                (await OpenAsync(directory, id)).Dispose();
                await directory.DeleteAsync(id);
            }

            // A layer that could not be removed is used again, or goes at last.
            Guid second = await SaveAsync(directory, snapshot);
            (await OpenAsync(directory, second)).Dispose();
            await directory.DeleteAsync(second);
            await directory.Collecting.Guarded();
            Assert.Empty(Folder.Files);
        }
    }

    [Theory]
    [InlineData(1000)]
    [InlineData(4096)]
    public async Task Short_and_interrupted_transfers_are_continued(int longest)
    {
        using SyntheticGuest guest = new(55);
        using KvmSnapshot snapshot = guest.Capture();
        using TestDirectory elsewhere = new();
        Guid id = Guid.NewGuid();
        await using (SnapshotDirectory plain = await OpenDirectoryAsync(elsewhere.Path))
        {
            await plain.SaveAsync(id, snapshot);
        }

        FileSystem.LongestTransfer = longest;
        FileSystem.Fault = static (call, number) =>
            call is "Read" or "Write" or "WriteBack" or "Sync" or "SyncDirectory" && number % 3 == 0 ? -Libc.ErrnoInterrupted : null;
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        await directory.SaveAsync(id, snapshot);
        using KvmSnapshot opened = await OpenAsync(directory, id);

        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
        Assert.Equal(elsewhere.Files, Folder.Files);
        Assert.All(Folder.Files, name => Assert.Equal(
            File.ReadAllBytes(Path.Combine(elsewhere.Path, name)),
            File.ReadAllBytes(Path.Combine(Folder.Path, name))));
    }

    [Fact]
    public async Task A_write_of_nothing_is_an_error()
    {
        using SyntheticGuest guest = new(56);
        using KvmSnapshot snapshot = guest.CapturePages(1);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        FileSystem.Fault = static (call, _) => call is "Write" ? 0 : null;
        await Assert.ThrowsAsync<StorageException>(() => directory.SaveAsync(Guid.NewGuid(), snapshot));
        FileSystem.Fault = null;
        Assert.Empty(Folder.Files);
    }

    [Fact]
    public async Task What_is_published_is_on_the_disk_in_the_right_order()
    {
        using SyntheticGuest guest = new(57);
        using KvmSnapshot snapshot = guest.CapturePages(1);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        FileSystem.Reset();
        Guid id = await SaveAsync(directory, snapshot);
        string[] expected =
        [
            "OpenRead",
            "Create", "Write", "Write", "WriteBack", "Write", "WriteBack",
            "Create", "Write", "WriteBack",
            "WriteBack", "Sync", "Sync", "SyncDirectory",
            "Rename", "Rename",
        ];
        Assert.Equal(expected, FileSystem.Calls);

        FileSystem.Reset();
        await directory.DeleteAsync(id);
        Assert.Equal(["Delete", "SyncDirectory", "Delete"], FileSystem.Calls);
    }
}

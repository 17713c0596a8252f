using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>A log that a platform which was killed has left: opening the directory does not wait for the files of what is in it.</summary>
public sealed class FoundLogTests : SnapshotFilesTest
{
    private const int Length = 1 << 20;

    private string LogPath => Path.Combine(Folder.Path, LogFormat.Name);

    [Fact]
    public async Task What_is_found_in_a_log_gets_its_files_when_the_directory_is_open()
    {
        List<(Guid Id, byte[] Memory)> saved = await KillAsync();
        ManualTimeProvider time = new();
        FileSystem.Reset();
        await using SnapshotDirectory again = OpenFound(time);

        // But for the name of the directory: whoever made it may have ended before it was on the disk.
        Assert.DoesNotContain(FileSystem.Calls, static call => call is "Write" or "Create" or "Sync" or "SyncData" or "Rename");
        Assert.Single(FileSystem.Calls, static call => call is "SyncDirectory");
        Assert.Equal(saved.Count, again.List().Count);
        Assert.Equal(4, again.Pending);
        await SettleAsync(again, time);

        Assert.Equal(0, again.Pending);
        Assert.False(File.Exists(LogPath));
        foreach ((Guid id, byte[] memory) in saved)
        {
            await AssertSoundAsync(again, id, memory);
        }

        // And there can be a log again.
        using SyntheticGuest guest = new(2);
        (Guid next, byte[] more) = await SaveAsync(again, guest, 1);
        await again.Preparing.Guarded();
        Assert.True(File.Exists(LogPath));
        (Guid last, byte[] most) = await SaveAsync(again, guest, 2);
        Assert.Equal(1, again.Pending);
        await AssertSoundAsync(again, next, more);
        await AssertSoundAsync(again, last, most);
    }

    [Fact]
    public async Task Whoever_wants_what_is_found_in_a_log_gets_it_before()
    {
        List<(Guid Id, byte[] Memory)> saved = await KillAsync();
        await using (SnapshotDirectory again = OpenFound(new ManualTimeProvider()))
        {
            // The first of the records; the others stay where they are, or get files with it.
            await AssertSoundAsync(again, saved[2].Id, saved[2].Memory);
            await again.DeleteAsync(saved[2].Id);
            using TestDirectory killed = Copy();
            await using SnapshotDirectory third = OpenFound(new ManualTimeProvider(), killed.Path);
            Assert.DoesNotContain(saved[2].Id, third.List());
            foreach ((Guid id, byte[] memory) in saved.Where(snapshot => snapshot.Id != saved[2].Id))
            {
                await AssertSoundAsync(third, id, memory);
            }
        }

        // Closing makes all of them.
        Assert.False(File.Exists(LogPath));
    }

    [Fact]
    public async Task What_is_saved_before_a_found_log_has_its_files_is_saved_behind_it()
    {
        List<(Guid Id, byte[] Memory)> saved = await KillAsync();
        ManualTimeProvider time = new();
        await using SnapshotDirectory again = OpenFound(time);
        using SyntheticGuest guest = new(3);
        saved.Add(await SaveAsync(again, guest, 7));
        Assert.Equal(0, again.Pending);
        await again.Preparing.Guarded();
        saved.Add(await SaveAsync(again, guest, 8));
        Assert.Equal(1, again.Pending);

        // What was to make files of the log that was found leaves the one that there is now alone.
        await SettleAsync(again, time);
        Assert.True(File.Exists(LogPath));
        saved.Add(await SaveAsync(again, guest, 9));
        Assert.Equal(1, again.Pending);
        using TestDirectory killed = Copy();
        await using SnapshotDirectory third = OpenFound(time, killed.Path);
        foreach ((Guid id, byte[] memory) in saved)
        {
            await AssertSoundAsync(again, id, memory);
            await AssertSoundAsync(third, id, memory);
        }
    }

    [Fact]
    public async Task A_full_disk_leaves_what_is_found_in_a_log_where_it_is()
    {
        List<(Guid Id, byte[] Memory)> saved = await KillAsync();
        ManualTimeProvider time = new();
        await using SnapshotDirectory again = OpenFound(time);
        FileSystem.Fault = static (call, _) => call is "Create" ? -Libc.ErrnoNoSpace : null;
        await SettleAsync(again, time);
        Assert.Equal(4, again.Pending);
        Assert.True((await Assert.ThrowsAsync<StorageException>(() => again.OpenAsync(saved[3].Id))).IsFull);

        FileSystem.Fault = null;
        foreach ((Guid id, byte[] memory) in saved)
        {
            await AssertSoundAsync(again, id, memory);
        }
    }

    /// <summary>The host is killed at every call of making files of a log that was found, and once more at the next start.</summary>
    [Fact]
    public async Task A_host_that_is_killed_while_a_found_log_gets_its_files_loses_nothing()
    {
        List<(Guid Id, byte[] Memory)> saved = await KillAsync();
        for (int call = 0; ; call++)
        {
            using TestDirectory folder = Copy();
            ManualTimeProvider time = new();
            FileSystem.Reset();
            int calls = 0;
            bool isOff = false;
            SnapshotDirectory again = OpenFound(time, folder.Path);
            int at = call;
            FileSystem.Fault = (name, _) =>
            {
                isOff |= name is not ("Read" or "Stat" or "OpenRead") && calls++ == at;
                return isOff ? -Libc.ErrnoInputOutput : null;
            };
            await SettleAsync(again, time);
            await again.DisposeAsync();
            FileSystem.Fault = null;

            await using SnapshotDirectory third = OpenFound(new ManualTimeProvider(), folder.Path);
            Assert.Equal(saved.Select(static snapshot => snapshot.Id).Order(), third.List().Order());
            foreach ((Guid id, byte[] memory) in saved)
            {
                await AssertSoundAsync(third, id, memory);
            }

            if (!isOff)
            {
                Assert.InRange(call, 10, int.MaxValue);
                break;
            }
        }
    }

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

    private SnapshotDirectory OpenFound(ManualTimeProvider time, string? path = null) => SnapshotDirectory.Open(
        FileSystem,
        path ?? Folder.Path,
        NullLogger.Instance,
        new PublicationLogOptions(time) { Length = Length, MaxLength = Length, Threshold = 1 },
        space: null,
        CancellationToken.None);

    /// <summary>Has a platform save two snapshots in files and four in its log, and leaves in the folder what a kill leaves.</summary>
    private async Task<List<(Guid Id, byte[] Memory)>> KillAsync()
    {
        using TestDirectory elsewhere = new();
        using SyntheticGuest guest = new(1);
        await using SnapshotDirectory directory = SnapshotDirectory.Open(
            FileSystem,
            elsewhere.Path,
            NullLogger.Instance,
            new PublicationLogOptions(new ManualTimeProvider()) { Length = Length, MaxLength = Length, Threshold = 2 },
            space: null,
            CancellationToken.None);
        List<(Guid, byte[])> saved = [await SaveAsync(directory, guest, 0, 1, 2, 3), await SaveAsync(directory, guest, 3, 4)];
        await directory.Preparing.Guarded();
        for (int i = 0; i < 4; i++)
        {
            saved.Add(await SaveAsync(directory, guest, 5 + i, 100 + i, 300));
        }

        Assert.Equal(4, directory.Pending);
        CopyFiles(elsewhere.Path, Folder.Path);
        return saved;
    }

    private TestDirectory Copy()
    {
        TestDirectory copy = new();
        CopyFiles(Folder.Path, copy.Path);
        return copy;
    }

    // A start makes its own lock; this one may be held.
    private static void CopyFiles(string from, string to)
    {
        foreach (string path in Directory.GetFiles(from).Where(static path => Path.GetFileName(path) is not "lock"))
        {
            File.Copy(path, Path.Combine(to, Path.GetFileName(path)));
        }
    }
}

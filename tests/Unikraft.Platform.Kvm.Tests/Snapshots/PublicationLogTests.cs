using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Snapshots that are saved in the log, and get files of their own later.</summary>
public sealed class PublicationLogTests : PublicationLogTest
{
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
}

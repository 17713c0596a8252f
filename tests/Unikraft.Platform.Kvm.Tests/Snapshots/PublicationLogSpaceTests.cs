using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>The room that the log takes, and that is set aside for the files of what is in it.</summary>
public sealed class PublicationLogSpaceTests : PublicationLogTest
{
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

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task What_is_found_in_a_log_has_room_set_aside_for_its_files_as_far_as_there_is_any(bool hasRoom)
    {
        using SyntheticGuest guest = new(145);
        await using SnapshotDirectory directory = await OpenWithLogAsync(guest);
        (Guid first, byte[] memory) = await SaveAsync(directory, guest, 3, 4, 90);
        (Guid second, byte[] more) = await SaveAsync(directory, guest, 5);
        using TestDirectory killed = Copy();
        string[] before = [.. killed.Files];
        Space = new TestSpace { Free = hasRoom ? long.MaxValue : 0 };
        await using SnapshotDirectory found = OpenAt(killed.Path, threshold: 2);
        Assert.Equal(2, found.Pending);
        long reserved = Space.Reserved;
        found.Settle();
        long used = killed.Files.Except(before, StringComparer.Ordinal).Sum(name => LogFormat.Align(new FileInfo(Path.Combine(killed.Path, name)).Length));
        Assert.InRange(reserved, hasRoom ? used : 0, hasRoom ? used + 8 * LogFormat.Block : 0);
        Assert.Equal(0, Space.Reserved);
        await AssertSoundAsync(found, first, memory);
        await AssertSoundAsync(found, second, more);
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
}

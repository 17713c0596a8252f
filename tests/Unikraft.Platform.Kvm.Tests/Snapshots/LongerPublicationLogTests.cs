using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>A log that was too short for what was saved at a stretch gets a successor.</summary>
public sealed class LongerPublicationLogTests : PublicationLogTest
{
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
        await AssertSoundAfterKillAsync(saved);
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
            await AssertSoundAfterKillAsync(saved);
            await AssertEmptiesAsync(directory);
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
}

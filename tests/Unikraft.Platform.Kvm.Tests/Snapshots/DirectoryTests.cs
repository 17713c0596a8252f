using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>What is saved, what is opened, and what is deleted when.</summary>
public sealed class DirectoryTests : SnapshotFilesTest
{
    [Fact]
    public async Task An_opened_snapshot_is_the_one_that_was_saved()
    {
        using SyntheticGuest guest = new(1);
        List<(Guid Id, KvmSnapshot Snapshot, byte[] Memory)> saved = [];
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            for (int i = 0; i < 12; i++)
            {
                KvmSnapshot snapshot = guest.Capture();
                saved.Add((await SaveAsync(directory, snapshot), snapshot, guest.Memory.ToArray()));
            }
        }

        await using SnapshotDirectory again = await OpenDirectoryAsync();
        Assert.Equal(saved.Select(entry => entry.Id).Order(), again.List().Order());
        foreach ((Guid id, KvmSnapshot snapshot, byte[] memory) in saved)
        {
            using KvmSnapshot opened = await OpenAsync(again, id);
            Assert.True(memory.AsSpan().SequenceEqual(SyntheticGuest.MemoryOf(opened)));
            Assert.Equal(
                (snapshot.StoredBytes, snapshot.Depth, snapshot.Pause, snapshot.Throttled),
                (opened.StoredBytes, opened.Depth, opened.Pause, opened.Throttled));
            Assert.Equal(snapshot.Vcpus.Select(vcpu => (vcpu.Wait, vcpu.IsWakePending)), opened.Vcpus.Select(vcpu => (vcpu.Wait, vcpu.IsWakePending)));
            Assert.Equal(SyntheticGuest.RegistersOf(snapshot, 0), SyntheticGuest.RegistersOf(opened, 0));
            Assert.Equal(SyntheticGuest.RegistersOf(snapshot, 1), SyntheticGuest.RegistersOf(opened, 1));
            Assert.Equal(snapshot.Device.ConsoleInput, opened.Device.ConsoleInput);
            Assert.Equal(snapshot.Device with { ConsoleInput = [] }, opened.Device with { ConsoleInput = [] });
            Assert.Equal(snapshot.Layout.Image, opened.Layout.Image);
            Assert.Equal(
                (snapshot.Layout.MemorySize, snapshot.Layout.Vcpus, snapshot.Layout.StacksStart, snapshot.Layout.HeapStart),
                (opened.Layout.MemorySize, opened.Layout.Vcpus, opened.Layout.StacksStart, opened.Layout.HeapStart));
            snapshot.Dispose();
        }
    }

    [Fact]
    public async Task A_directory_can_be_moved_and_copied()
    {
        using SyntheticGuest guest = new(2);
        using KvmSnapshot snapshot = guest.Capture();
        using TestDirectory copy = new();
        Guid id;
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            id = await SaveAsync(directory, snapshot);
        }

        foreach (string name in Folder.Files)
        {
            File.Copy(Path.Combine(Folder.Path, name), Path.Combine(copy.Path, name));
        }

        await using SnapshotDirectory moved = await OpenDirectoryAsync(copy.Path);
        using KvmSnapshot opened = await OpenAsync(moved, id);
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
    }

    [Fact]
    public async Task Only_layers_that_are_not_there_are_written()
    {
        using SyntheticGuest guest = new(3);
        using KvmSnapshot first = guest.Capture(runs: 30);
        using KvmSnapshot second = guest.CapturePages(7);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        long all = await directory.SaveAsync(Guid.NewGuid(), first);
        long more = await directory.SaveAsync(Guid.NewGuid(), second);
        long nothing = await directory.SaveAsync(Guid.NewGuid(), second);

        Assert.InRange(all, first.StoredBytes, first.StoredBytes + (64 << 10));
        Assert.InRange(more, 4096, 4096 + (32 << 10));
        Assert.InRange(nothing, 1, 16 << 10);
        Assert.Equal(3 + 2, Folder.Files.Count);
    }

    [Fact]
    public async Task What_is_folded_while_a_snapshot_waits_to_be_saved_is_not_written_with_it()
    {
        using SyntheticGuest guest = new(31);
        using SyntheticGuest other = new(32);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot first = guest.Capture(runs: 30);
        await SaveAsync(directory, first);
        using KvmSnapshot second = guest.CapturePages(7);
        using KvmSnapshot ahead = other.Capture();
        TaskCompletionSource held = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using ManualResetEventSlim go = new();
        FileSystem.Fault = (_, _) =>
        {
            held.TrySetResult();
            go.Wait();
            return null;
        };
        Task<long> saving = directory.SaveAsync(Guid.NewGuid(), ahead);
        await held.Task.Guarded();
        Guid id = Guid.NewGuid();
        Task<long> waiting = directory.SaveAsync(id, second);
        guest.Fold(second);
        FileSystem.Fault = null;
        go.Set();
        await saving.Guarded();
        Assert.InRange(await waiting.Guarded(), 4096, 4096 + (32 << 10));
        using KvmSnapshot opened = await OpenAsync(directory, id);
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
    }

    [Fact]
    public async Task What_was_folded_is_not_written_again_while_it_is_there()
    {
        using SyntheticGuest guest = new(31);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot first = guest.Capture(runs: 30);
        Guid one = await SaveAsync(directory, first);
        using KvmSnapshot second = guest.Capture(runs: 30);
        Guid two = await SaveAsync(directory, second);
        guest.Fold();
        using KvmSnapshot third = guest.CapturePages(7, 8, 500);
        guest.Fold();
        using KvmSnapshot fourth = guest.CapturePages(9);
        long written = await directory.SaveAsync(Guid.NewGuid(), third);
        Guid last = Guid.NewGuid();
        written += await directory.SaveAsync(last, fourth);

        Assert.InRange(written, 4 * 4096, (4 * 4096) + (64 << 10));
        await directory.DeleteAsync(one);
        await directory.DeleteAsync(two);
        await directory.Collecting.Guarded();
        using (KvmSnapshot opened = await OpenAsync(directory, last))
        {
            Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
        }

        // What it was folded from is gone: the fold itself is written.
        foreach (Guid id in directory.List())
        {
            await directory.DeleteAsync(id);
        }

        await directory.Collecting.Guarded();
        Guid alone = await SaveAsync(directory, fourth);
        using KvmSnapshot again = await OpenAsync(directory, alone);
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(again)));
        await directory.VerifyAsync(alone);
    }

    [Fact]
    public async Task A_fold_of_many_layers_is_written_so_that_a_long_lineage_has_few()
    {
        using SyntheticGuest guest = new(32);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        List<KvmSnapshot> snapshots = [];
        int most = 0;
        for (int i = 0; i < 150; i++)
        {
            snapshots.Add(guest.CapturePages(i * 5, (i * 5) + 2));
            Guid id = await SaveAsync(directory, snapshots[^1]);
            most = Math.Max(most, directory.GetFiles(id).Count);
            guest.Fold();
        }

        Assert.InRange(most, 32, Kvm.Memory.FoldOrigin.MaxLayers + 6);
        Guid last = await SaveAsync(directory, snapshots[^1]);
        using KvmSnapshot opened = await OpenAsync(directory, last);
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
        snapshots.ForEach(snapshot => snapshot.Dispose());
    }

    [Fact]
    public async Task A_snapshot_that_builds_on_an_opened_one_shares_its_files()
    {
        using SyntheticGuest guest = new(4);
        using KvmSnapshot first = guest.Capture();
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        Guid id = await SaveAsync(directory, first);
        using KvmSnapshot opened = await OpenAsync(directory, id);
        IReadOnlyList<string> before = Folder.Files;

        Guid copy = await SaveAsync(directory, opened);
        using KvmSnapshot again = await OpenAsync(directory, copy);

        Assert.Equal(before.Count + 1, Folder.Files.Count);
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(again)));
    }

    [Fact]
    public async Task An_opened_snapshot_can_be_saved_elsewhere_and_gives_the_same_files()
    {
        using SyntheticGuest guest = new(5);
        using KvmSnapshot first = guest.Capture();
        using KvmSnapshot second = guest.Capture();
        using TestDirectory elsewhere = new();
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        Guid id = await SaveAsync(directory, second);
        using KvmSnapshot opened = await OpenAsync(directory, id);
        await using SnapshotDirectory other = await OpenDirectoryAsync(elsewhere.Path);
        await other.SaveAsync(id, opened);

        Assert.Equal(Folder.Files, elsewhere.Files);
        Assert.All(Folder.Files, name => Assert.Equal(
            File.ReadAllBytes(Path.Combine(Folder.Path, name)),
            File.ReadAllBytes(Path.Combine(elsewhere.Path, name))));
    }

    [Fact]
    public async Task Each_file_is_verified_once_however_many_open_it_at_once()
    {
        using SyntheticGuest guest = new(6);
        using KvmSnapshot first = guest.Capture(runs: 40);
        using KvmSnapshot second = guest.Capture(runs: 40);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        Guid[] ids = [await SaveAsync(directory, first), await SaveAsync(directory, second)];
        long pages = LayersOf(second).Concat(LayersOf(first)).Distinct().Sum(id => new FileInfo(Folder.LayerOf(id)).Length);
        FileSystem.Reset();

        KvmSnapshot[] opened = await Task.WhenAll(Enumerable.Range(0, 16).Select(i => OpenAsync(directory, ids[i % 2])));
        long once = FileSystem.BytesRead;
        Assert.InRange(once, pages, pages + 16 * (new FileInfo(Folder.StateOf(ids[1])).Length + 128));
        Assert.All(opened, snapshot => snapshot.Dispose());

        // Nobody has it open any more, but it is trusted as long as the host says that it did not change.
        FileSystem.Reset();
        using (await OpenAsync(directory, ids[1]))
        {
            Assert.InRange(FileSystem.BytesRead, 1, pages / 4);
        }

        FileSystem.Reset();
        await directory.VerifyAsync(ids[1]);
        Assert.InRange(FileSystem.BytesRead, LayersOf(second).Sum(id => new FileInfo(Folder.LayerOf(id)).Length), long.MaxValue);
    }

    [Fact]
    public async Task A_layer_goes_with_the_last_snapshot_that_refers_to_it()
    {
        using SyntheticGuest guest = new(7);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot first = guest.CapturePages(1, 2, 3);
        using KvmSnapshot second = guest.CapturePages(2, 5);
        using KvmSnapshot third = guest.CapturePages(1, 2, 3, 4);
        Guid bottom = LayersOf(first).Single();
        Guid middle = LayersOf(second).Except([bottom]).Single();
        Guid top = LayersOf(third).Except([bottom, middle]).Single();
        Guid[] ids = [await SaveAsync(directory, first), await SaveAsync(directory, second), await SaveAsync(directory, third)];

        // The third hides all of the bottom layer and does not refer to it.
        Assert.Equal([bottom, middle, top], Layers([bottom, middle, top]));
        await directory.DeleteAsync(ids[0]);
        Assert.Equal([bottom, middle, top], Layers([bottom, middle, top]));
        await directory.DeleteAsync(ids[1]);
        Assert.Equal([middle, top], Layers([bottom, middle, top]));
        using (KvmSnapshot opened = await OpenAsync(directory, ids[2]))
        {
            Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
        }

        await directory.DeleteAsync(ids[2]);
        await directory.Collecting.Guarded();
        Assert.Empty(Folder.Files);
        Assert.Empty(directory.List());
        await Assert.ThrowsAsync<ResourceNotFoundException>(() => directory.DeleteAsync(ids[2]));
        await Assert.ThrowsAsync<ResourceNotFoundException>(() => directory.OpenAsync(ids[2]));
        await Assert.ThrowsAsync<ResourceNotFoundException>(() => directory.VerifyAsync(ids[2]));

        Guid[] Layers(Guid[] of) => [.. of.Where(id => File.Exists(Folder.LayerOf(id)))];
    }

    [Fact]
    public async Task A_layer_in_use_stays_until_its_last_user_is_gone()
    {
        using SyntheticGuest guest = new(8);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot snapshot = guest.Capture();
        string layer = Folder.LayerOf(LayersOf(snapshot).Single());
        Guid id = await SaveAsync(directory, snapshot);
        KvmSnapshot one = await OpenAsync(directory, id);
        KvmSnapshot two = await OpenAsync(directory, id);
        await directory.DeleteAsync(id);

        one.Dispose();
        await directory.Collecting.Guarded();
        Assert.True(File.Exists(layer));
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(two)));

        // What is in use can be referred to again.
        Guid second = await SaveAsync(directory, two);
        two.Dispose();
        await directory.Collecting.Guarded();
        Assert.True(File.Exists(layer));
        using (KvmSnapshot opened = await OpenAsync(directory, second))
        {
            await directory.DeleteAsync(second);
            Assert.True(File.Exists(layer));
        }

        await directory.Collecting.Guarded();
        Assert.Empty(Folder.Files);
    }

    [Fact]
    public async Task Snapshots_outlive_the_directory_object()
    {
        using SyntheticGuest guest = new(9);
        SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot snapshot = guest.Capture();
        Guid id = await SaveAsync(directory, snapshot);
        using KvmSnapshot opened = await OpenAsync(directory, id);
        await directory.DisposeAsync();
        await directory.DisposeAsync();

        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
        Assert.Throws<ObjectDisposedException>(() => directory.List());
        await Assert.ThrowsAsync<ObjectDisposedException>(() => directory.OpenAsync(id));
        await Assert.ThrowsAsync<ObjectDisposedException>(() => directory.SaveAsync(id, snapshot));
        await Assert.ThrowsAsync<ObjectDisposedException>(() => directory.DeleteAsync(id));
    }

    [Fact]
    public async Task What_an_interrupted_operation_left_goes_when_the_directory_is_opened()
    {
        using SyntheticGuest guest = new(10);
        using KvmSnapshot snapshot = guest.Capture();
        Guid id;
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            id = await SaveAsync(directory, snapshot);
        }

        IReadOnlyList<string> files = Folder.Files;
        string layer = Folder.LayerOf(LayersOf(snapshot).Single());
        File.Copy(layer, Folder.LayerOf(Guid.NewGuid()));
        await File.WriteAllTextAsync(Folder.LayerOf(Guid.NewGuid()) + ".tmp", "half a layer");
        await File.WriteAllTextAsync(Folder.StateOf(id) + ".tmp", "half a state");
        await File.WriteAllTextAsync(Path.Combine(Folder.Path, "notes.txt"), "none of ours");
        await using SnapshotDirectory again = await OpenDirectoryAsync();

        Assert.Equal([.. files, "notes.txt"], Folder.Files);
        (await OpenAsync(again, id)).Dispose();
    }

    [Fact]
    public async Task A_directory_is_open_once_at_a_time()
    {
        SnapshotDirectory directory = await OpenDirectoryAsync();
        StorageException error = await Assert.ThrowsAsync<StorageException>(() => OpenDirectoryAsync());
        Assert.Contains($"'{Folder.Path}' is open elsewhere", error.Message, StringComparison.Ordinal);
        Assert.Equal(PlatformErrorCode.StorageFailed, error.Code);
        await directory.DisposeAsync();
        await (await OpenDirectoryAsync()).DisposeAsync();
    }

    [Fact]
    public async Task A_directory_is_made_where_its_parent_is_there()
    {
        string path = Path.Combine(Folder.Path, "new");
        await (await OpenDirectoryAsync(path)).DisposeAsync();
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, new DirectoryInfo(path).UnixFileMode);
        StorageException error = await Assert.ThrowsAsync<StorageException>(() => OpenDirectoryAsync(Path.Combine(path, "a", "b")));
        Assert.Contains(Path.Combine(path, "a", "b"), error.Message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<ArgumentException>(() => OpenDirectoryAsync(" "));
    }

    [Fact]
    public async Task A_name_is_taken_once_and_bad_snapshots_are_refused()
    {
        using SyntheticGuest guest = new(11);
        using KvmSnapshot snapshot = guest.Capture();
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        Guid id = await SaveAsync(directory, snapshot);
        IReadOnlyList<string> files = Folder.Files;

        NameConflictException taken = await Assert.ThrowsAsync<NameConflictException>(() => directory.SaveAsync(id, snapshot));
        Assert.Equal($"A snapshot with the name '{id:D}' already exists", taken.Message);
        KvmSnapshot gone = guest.Capture();
        gone.Dispose();
        await Assert.ThrowsAsync<ObjectDisposedException>(() => directory.SaveAsync(Guid.NewGuid(), gone));
        await Assert.ThrowsAsync<ArgumentException>(() => directory.SaveAsync(Guid.NewGuid(), new ForeignSnapshot()));
        await Assert.ThrowsAsync<ArgumentNullException>(() => directory.SaveAsync(Guid.NewGuid(), null!));
        Assert.Equal(files, Folder.Files);
    }

    [Fact]
    public async Task Progress_is_told_to_the_end()
    {
        using SyntheticGuest guest = new(12);
        using KvmSnapshot snapshot = guest.Capture(runs: 40);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        Guid id = Guid.NewGuid();
        Recorder saving = new();
        Recorder opening = new();
        Recorder trusting = new();
        Recorder verifying = new();
        await directory.SaveAsync(id, snapshot, saving);
        using IMachineSnapshot opened = await directory.OpenAsync(id, opening);
        using IMachineSnapshot trusted = await directory.OpenAsync(id, trusting);
        await directory.VerifyAsync(id, verifying);

        Assert.All([saving, opening, trusting, verifying], recorder =>
        {
            Assert.Single(recorder.Reports.Select(report => report.TotalBytes).Distinct());
            Assert.Equal(recorder.Reports.Select(report => report.CompletedBytes).Order(), recorder.Reports.Select(report => report.CompletedBytes));
            Assert.Equal(recorder.Reports[^1].TotalBytes, recorder.Reports[^1].CompletedBytes);
        });
        Assert.Equal(snapshot.StoredBytes, saving.Reports[^1].TotalBytes);
        Assert.True(saving.Reports.Count > 1 && opening.Reports.Count > 1 && verifying.Reports.Count > 1);
    }

    [Fact]
    public async Task Cancelling_leaves_nothing_behind()
    {
        using SyntheticGuest guest = new(13);
        using KvmSnapshot first = guest.CapturePages(1);
        using KvmSnapshot snapshot = guest.Capture(runs: 60);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        await SaveAsync(directory, first);
        IReadOnlyList<string> files = Folder.Files;
        Guid id = Guid.NewGuid();
        using (CancellationTokenSource cancellation = new())
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(
                () => directory.SaveAsync(id, snapshot, new Recorder(cancellation.Cancel), cancellation.Token));
        }

        await directory.Collecting.Guarded();
        Assert.Equal(files, Folder.Files);
        Assert.DoesNotContain(id, directory.List());

        await directory.SaveAsync(id, snapshot);
        using (CancellationTokenSource cancellation = new())
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(
                () => directory.OpenAsync(id, new Recorder(cancellation.Cancel), cancellation.Token));
        }

        using KvmSnapshot opened = await OpenAsync(directory, id);
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
    }

    /// <remarks>Not in the SVM lab: files, of which KVM knows nothing.</remarks>
    [Fact]
    [Trait("Lab", "TooLong")]
    public async Task Saving_opening_and_deleting_at_once_get_along()
    {
        using SyntheticGuest guest = new(14);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        List<(KvmSnapshot Snapshot, byte[] Memory)> chain = [];
        for (int i = 0; i < 6; i++)
        {
            chain.Add((guest.Capture(), guest.Memory.ToArray()));
        }

        await Task.WhenAll(Enumerable.Range(0, 4).Select(worker => Task.Run(async () =>
        {
            Random random = new(worker);
            for (int i = 0; i < 40; i++)
            {
                (KvmSnapshot snapshot, byte[] memory) = chain[random.Next(chain.Count)];
                Guid id = await SaveAsync(directory, snapshot);
                using KvmSnapshot opened = await OpenAsync(directory, id);
                await directory.DeleteAsync(id).Guarded();
                Assert.True(memory.AsSpan().SequenceEqual(SyntheticGuest.MemoryOf(opened)));
            }
        })));
        await directory.Collecting.Guarded();

        Assert.Empty(Folder.Files);
        chain.ForEach(entry => entry.Snapshot.Dispose());
    }

    [Fact]
    public async Task Nothing_stays_open_or_mapped()
    {
        using SyntheticGuest guest = new(15);
        using KvmSnapshot snapshot = guest.Capture();
        await ProcessResources.AssertNoGrowthAsync(async () =>
        {
            await using SnapshotDirectory directory = await OpenDirectoryAsync();
            Guid id = await SaveAsync(directory, snapshot);
            using (KvmSnapshot opened = await OpenAsync(directory, id))
            {
                SyntheticGuest.MemoryOf(opened);
            }

            await directory.DeleteAsync(id);
        });
    }

    private sealed class Recorder(Action? onReport = null) : IProgress<SnapshotProgress>
    {
        internal List<SnapshotProgress> Reports { get; } = [];

        public void Report(SnapshotProgress value)
        {
            Reports.Add(value);
            onReport?.Invoke();
        }
    }

    private sealed class ForeignSnapshot : IMachineSnapshot
    {
        public long StoredBytes => 0;

        public int Depth => 1;

        public TimeSpan Pause => default;

        public TimeSpan Throttled => default;

        public void Dispose()
        {
        }
    }
}

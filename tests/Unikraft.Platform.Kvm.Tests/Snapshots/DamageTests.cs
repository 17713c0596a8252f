using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Whatever happens to a file is found before a machine runs on it, and what is sound keeps working.</summary>
public sealed class DamageTests : SnapshotFilesTest
{
    private const int Footer = 144;

    /// <remarks>Not in the SVM lab: files, of which KVM knows nothing.</remarks>
    [Fact]
    [Trait("Lab", "TooLong")]
    public async Task Every_flipped_byte_is_found()
    {
        const int HeaderFields = 64;
        using SyntheticGuest guest = new(21);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();

        // One layer of two chunks and many runs, one of few pages.
        using KvmSnapshot first = guest.CapturePages([.. Enumerable.Range(0, 90).Select(page => page * 3)]);
        using KvmSnapshot second = guest.CapturePages(2, 5, 700);
        Guid id = await SaveAsync(directory, second);
        string state = Folder.StateOf(id);
        string large = Folder.LayerOf(LayersOf(first).Single());
        string small = Folder.LayerOf(LayersOf(second).Except(LayersOf(first)).Single());
        Random random = new(21);
        int flips = 0;

        // Every kind of region: all of the state; of layers the header, its padding, pages, and all of index, checksums and footer.
        await FlipAsync(state, Every(0, Length(state)));
        await FlipAsync(small, Every(0, HeaderFields).Concat(Sample(HeaderFields, 4096, 400)).Concat(Sample(4096, 4096 * 4, 2000)));
        await FlipAsync(small, Every(4096 * 4, Length(small)));
        await FlipAsync(large, Every(0, HeaderFields).Concat(Sample(4096, 4096 * 91, 600)).Concat(Every(4096 * 91, Length(large))));

        Assert.InRange(flips, 10_000, int.MaxValue);
        using KvmSnapshot opened = await OpenAsync(directory, id);
        Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));

        IEnumerable<int> Sample(int from, int to, int count) => Enumerable.Range(0, count).Select(_ => random.Next(from, to));

        async Task FlipAsync(string path, IEnumerable<int> offsets)
        {
            using FileStream file = new(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, bufferSize: 0);
            foreach (int offset in offsets)
            {
                file.Position = offset;
                byte original = (byte)file.ReadByte();
                Put((byte)(original ^ 1 << random.Next(8)));
                SnapshotFileException error = await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(id));
                Put(original);
                Assert.Equal(path, error.Path);
                Assert.Equal([id], error.Snapshots);
                Assert.Contains(path, error.Message, StringComparison.Ordinal);
                Assert.Contains(id.ToString("D"), error.Message, StringComparison.Ordinal);
                Assert.Equal(PlatformErrorCode.InvalidSnapshotFile, error.Code);
                Assert.True(
                    error.Error is SnapshotFileError.Damaged or SnapshotFileError.UnknownVersion,
                    $"byte {offset} of {path}: {error.Message}");
                flips++;

                void Put(byte value)
                {
                    file.Position = offset;
                    file.WriteByte(value);
                    file.Flush();
                }
            }
        }
    }

    [Fact]
    public async Task Files_cut_short_or_extended_are_found()
    {
        using SyntheticGuest guest = new(22);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot snapshot = guest.CapturePages([.. Enumerable.Range(0, 70).Select(page => page * 2)]);
        Guid id = await SaveAsync(directory, snapshot);
        foreach (string path in (string[])[Folder.StateOf(id), Folder.LayerOf(LayersOf(snapshot).Single())])
        {
            byte[] sound = await File.ReadAllBytesAsync(path);
            int[] lengths =
            [
                0, 1, 7, 63, 127, 128, 4095, 4096, 4097, sound.Length - 4096, sound.Length - Footer, sound.Length - 32, sound.Length - 1,
                sound.Length + 1, sound.Length + 32, sound.Length + Footer, sound.Length + 4096,
            ];
            foreach (int length in lengths.Where(length => length >= 0))
            {
                byte[] changed = new byte[length];
                sound.AsSpan(0, Math.Min(length, sound.Length)).CopyTo(changed);
                await File.WriteAllBytesAsync(path, changed);
                SnapshotFileException error = await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(id));
                Assert.Equal((path, SnapshotFileError.Damaged), (error.Path, error.Error));
                Assert.Matches("bytes|begin", error.Message);
            }

            await File.WriteAllBytesAsync(path, sound);
            await directory.VerifyAsync(id);
        }
    }

    [Fact]
    public async Task Missing_swapped_and_renamed_files_are_found_and_the_rest_keeps_working()
    {
        using SyntheticGuest guest = new(23);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot first = guest.CapturePages(1, 2, 3);
        using KvmSnapshot second = guest.CapturePages(10, 11, 12);
        using KvmSnapshot third = guest.CapturePages(20, 21, 22);
        Guid[] ids = [await SaveAsync(directory, first), await SaveAsync(directory, second), await SaveAsync(directory, third)];
        string bottom = Folder.LayerOf(LayersOf(first).Single());
        string middle = Folder.LayerOf(LayersOf(second).Except(LayersOf(first)).Single());

        await Changed(() => File.Move(middle, middle + ".away"), async () =>
        {
            SnapshotFileException error = await AssertBroken(ids[1], middle, SnapshotFileError.Missing);
            Assert.Equal(new[] { ids[1], ids[2] }.Order(), error.Snapshots.Order());
            await AssertBroken(ids[2], middle, SnapshotFileError.Missing);
            (await OpenAsync(directory, ids[0])).Dispose();
        }, () => File.Move(middle + ".away", middle));
        await Changed(() => Swap(bottom, middle), async () =>
        {
            await AssertBroken(ids[0], bottom, SnapshotFileError.Mismatched);
            await AssertBroken(ids[2], null, SnapshotFileError.Mismatched);
        }, () => Swap(bottom, middle));
        await Changed(() => Swap(Folder.StateOf(ids[0]), Folder.StateOf(ids[2])), async () =>
        {
            await AssertBroken(ids[0], Folder.StateOf(ids[0]), SnapshotFileError.Mismatched);
            await AssertBroken(ids[2], Folder.StateOf(ids[2]), SnapshotFileError.Mismatched);
            (await OpenAsync(directory, ids[1])).Dispose();
        }, () => Swap(Folder.StateOf(ids[0]), Folder.StateOf(ids[2])));
        await Changed(() => File.Move(Folder.StateOf(ids[1]), Folder.StateOf(ids[1]) + "x"), async () =>
        {
            await AssertBroken(ids[1], Folder.StateOf(ids[1]), SnapshotFileError.Missing);
        }, () => File.Move(Folder.StateOf(ids[1]) + "x", Folder.StateOf(ids[1])));
        await Changed(() => Swap(bottom, Folder.StateOf(ids[0])), async () =>
        {
            await AssertBroken(ids[0], Folder.StateOf(ids[0]), SnapshotFileError.Damaged);
            await AssertBroken(ids[1], bottom, SnapshotFileError.Damaged);
        }, () => Swap(bottom, Folder.StateOf(ids[0])));

        async Task Changed(Action change, Func<Task> check, Action undo)
        {
            change();
            await check();
            undo();
            await directory.VerifyAsync(ids[2]);
        }

        async Task<SnapshotFileException> AssertBroken(Guid id, string? path, SnapshotFileError kind)
        {
            SnapshotFileException error = await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(id));
            Assert.Equal(kind, error.Error);
            Assert.Equal(path ?? error.Path, error.Path);
            Assert.Contains(id, error.Snapshots);
            await Assert.ThrowsAsync<SnapshotFileException>(() => directory.VerifyAsync(id));
            return error;
        }
    }

    [Fact]
    public async Task A_layer_of_another_content_under_the_same_name_is_found()
    {
        using SyntheticGuest guest = new(24);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot snapshot = guest.CapturePages(1, 2, 3);
        Guid id = await SaveAsync(directory, snapshot);
        string path = Folder.LayerOf(LayersOf(snapshot).Single());
        byte[] file = await File.ReadAllBytesAsync(path);
        file[4096 + 5] ^= 0x10;
        LayerResealer.Seal(file);
        await File.WriteAllBytesAsync(path, file);

        SnapshotFileException error = await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(id));
        Assert.Equal((path, SnapshotFileError.Mismatched), (error.Path, error.Error));
    }

    [Fact]
    public async Task Damage_that_comes_after_the_first_opening_is_found_by_a_verification()
    {
        using SyntheticGuest guest = new(25);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot snapshot = guest.CapturePages(1, 2, 3);
        Guid id = await SaveAsync(directory, snapshot);
        string path = Folder.LayerOf(LayersOf(snapshot).Single());
        (await OpenAsync(directory, id)).Dispose();
        await FlipAsync(path, 5000);

        Assert.Equal(path, (await Assert.ThrowsAsync<SnapshotFileException>(() => directory.VerifyAsync(id))).Path);
        Assert.Equal(path, (await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(id))).Path);
    }

    [Fact]
    public async Task Damaged_snapshots_are_listed_deleted_and_cost_the_others_nothing()
    {
        using SyntheticGuest guest = new(26);
        using KvmSnapshot first = guest.CapturePages(1, 2, 3);
        using KvmSnapshot second = guest.CapturePages(10, 11);
        Guid[] ids;
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            ids = [await SaveAsync(directory, first), await SaveAsync(directory, second)];
        }

        await FlipAsync(Folder.StateOf(ids[1]), 300);
        IReadOnlyList<string> files = Folder.Files;
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            // Nobody knows what the damaged state needs, so nothing is collected, though nothing that can be read refers to the layer.
            Assert.Equal(ids.Order(), directory.List().Order());
            Assert.Equal(files, Folder.Files);
            (await OpenAsync(directory, ids[0])).Dispose();
            await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(ids[1]));
            await directory.DeleteAsync(ids[0]);
            await directory.Collecting.Guarded();
            Assert.Equal(files.Count - 1, Folder.Files.Count);

            // A sound copy is all it takes.
            await FlipAsync(Folder.StateOf(ids[1]), 300);
            using (KvmSnapshot opened = await OpenAsync(directory, ids[1]))
            {
                Assert.True(guest.Memory.SequenceEqual(SyntheticGuest.MemoryOf(opened)));
            }

            await FlipAsync(Folder.StateOf(ids[1]), 300);
            await directory.DeleteAsync(ids[1]);
            await directory.Collecting.Guarded();
        }

        await (await OpenDirectoryAsync()).DisposeAsync();
        Assert.Empty(Folder.Files);
    }

    [Fact]
    public async Task Layers_are_kept_while_another_one_is_missing()
    {
        using SyntheticGuest guest = new(27);
        using KvmSnapshot snapshot = guest.CapturePages(1, 2, 3);
        Guid id;
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            id = await SaveAsync(directory, snapshot);
        }

        string layer = Folder.LayerOf(LayersOf(snapshot).Single());
        string renamed = Folder.LayerOf(Guid.NewGuid());
        File.Move(layer, renamed);
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            SnapshotFileException error = await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(id));
            Assert.Equal((layer, SnapshotFileError.Missing), (error.Path, error.Error));
            File.Move(renamed, layer);
            (await OpenAsync(directory, id)).Dispose();
        }
    }

    [Fact]
    public async Task A_layer_that_is_lost_is_written_again_by_who_still_has_it()
    {
        using SyntheticGuest guest = new(28);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot snapshot = guest.CapturePages(1, 2, 3);
        Guid id = await SaveAsync(directory, snapshot);
        string layer = Folder.LayerOf(LayersOf(snapshot).Single());
        byte[] sound = await File.ReadAllBytesAsync(layer);
        foreach (byte[]? damaged in (byte[]?[])[null, [], sound[..5000]])
        {
            File.Delete(layer);
            if (damaged is not null)
            {
                await File.WriteAllBytesAsync(layer, damaged);
            }

            await SaveAsync(directory, snapshot);
            Assert.Equal(sound, await File.ReadAllBytesAsync(layer));
        }

        (await OpenAsync(directory, id)).Dispose();
    }

    private static IEnumerable<int> Every(int from, int to) => Enumerable.Range(from, to - from);

    private static int Length(string path) => (int)new FileInfo(path).Length;

    private static async Task FlipAsync(string path, int offset)
    {
        byte[] file = await File.ReadAllBytesAsync(path);
        file[offset] ^= 0x40;
        await File.WriteAllBytesAsync(path, file);
    }

    private static void Swap(string one, string other)
    {
        File.Move(one, one + ".swap");
        File.Move(other, one);
        File.Move(one + ".swap", other);
    }
}

using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes.Qcow2;
using Unikraft.Platform.Volumes.Tests.Testing;

namespace Unikraft.Platform.Volumes.Tests;

/// <summary>Volumes that are cut while they are in use.</summary>
public sealed class VolumeTests : IDisposable
{
    private const int Size = 4 << 20;

    private readonly JudgedFolder _folder = new();
    private int _files;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Both_sides_of_a_cut_have_what_was_before_it_and_only_their_own_of_what_came_after()
    {
        await using VolumeDisk source = await VolumeDisk.CreateAsync(NextFile(), Size);
        await source.WriteAsync(0, Filled(1, 8192));
        PreparedOverlay forSource = await source.PrepareOverlayAsync(NextFile());
        PreparedOverlay forClone = await source.PrepareOverlayAsync(NextFile());
        await source.WriteAsync(4096, Filled(2, 4096));

        await source.HoldAsync();
        await using VolumeCut cut = source.Cut(forSource);
        await using VolumeDisk clone = VolumeDisk.Open(forClone);
        source.Release();
        cut.Publish();
        await source.WriteAsync(0, Filled(3, 4096));
        await clone.WriteAsync(4096, Filled(4, 4096));

        await AssertHoldsAsync(source, 0, Filled(3, 4096), Filled(2, 4096));
        await AssertHoldsAsync(clone, 0, Filled(1, 4096), Filled(4, 4096));
        await using PreparedOverlay later = await cut.PrepareOverlayAsync(NextFile());
        await using VolumeDisk another = VolumeDisk.Open(later);
        await AssertHoldsAsync(another, 0, Filled(1, 4096), Filled(2, 4096));
        await clone.FlushAsync();
        await source.FlushAsync();
    }

    [Fact]
    public async Task Requests_that_meet_a_cut_half_way_are_neither_refused_nor_left_undone()
    {
        await using VolumeDisk volume = await VolumeDisk.CreateAsync(NextFile(), Size);
        await volume.WriteAsync(0, Filled(1, 4096));
        PreparedOverlay overlay = await volume.PrepareOverlayAsync(NextFile());
        await volume.HoldAsync();

        // What the cut does first: nobody writes to the top any more, and there is no other one yet.
        Qcow2Image top = Assert.IsType<Qcow2Image>(overlay.Image.Backing);
        top.Freeze();
        Assert.False(volume.IsReadOnly);
        ValueTask writing = volume.WriteAsync(4096, Filled(2, 4096));
        await volume.FlushAsync();
        string found = NextFile();

        // By a tool of its own, which does not mind the lock on the file.
        using (Process copy = Process.Start("cp", [top.Path, found]))
        {
            await copy.WaitForExitAsync();
            Assert.Equal(0, copy.ExitCode);
        }

        await using VolumeCut cut = volume.Cut(overlay);
        volume.Release();
        cut.Publish();
        await writing;
        await AssertHoldsAsync(volume, 0, Filled(1, 4096), Filled(2, 4096));
        Qcow2Image flushed = ImageChain.Open(found, isReadOnly: false);
        byte[] content = new byte[8192];
        flushed.Read(0, content);
        flushed.Release();
        DiskModel.AssertEqual([.. Filled(1, 4096), .. new byte[4096]], content, 0);
    }

    [Fact]
    public async Task A_fold_that_is_interrupted_leaves_the_volume_as_it_was()
    {
        const int Depth = 10;
        OpenLayers layers = new();
        string folder = Directory.CreateDirectory(_folder["chain"]).FullName;
        byte[] expected = new byte[Size];
        await using VolumeDisk volume = await VolumeDisk.CreateAsync(ImageOf(0), Size, layers: layers);
        for (int image = 1; image <= Depth; image++)
        {
            byte[] data = Filled((byte)image, 64 << 10);
            await volume.WriteAsync(image * (100 << 10), data);
            data.CopyTo(expected, image * (100 << 10));
            PreparedOverlay overlay = await volume.PrepareOverlayAsync(ImageOf(image));
            await volume.HoldAsync();
            await using VolumeCut cut = volume.Cut(overlay);
            volume.Release();
            cut.Publish();
        }

        await volume.FlushAsync();
        using CancellationTokenSource cancelled = new();
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => volume.FoldAsync(8, ImageOf(Depth + 1), cancelled.Token));
        Assert.False(File.Exists(ImageOf(Depth + 1)));

        // The host ends before the header of the top names the new image, and before the others are deleted.
        layers.SyncNames = () => Copy("before");
        Assert.True(await volume.FoldAsync(8, ImageOf(Depth + 1), CancellationToken.None));
        Copy("after");
        Assert.Equal(4, volume.ListPaths().Count);
        foreach ((string copy, int images) in ((string, int)[])[("before", Depth + 1), ("after", 4)])
        {
            await using VolumeDisk found = await VolumeDisk.OpenAsync(Path.Combine(_folder[copy], Path.GetFileName(ImageOf(Depth))));
            Assert.Equal(images, found.ListPaths().Count);
            await AssertHoldsAsync(found, 0, expected);
        }

        string ImageOf(int number) => Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"{number:d3}.qcow2"));

        void Copy(string name)
        {
            using Process copy = Process.Start("cp", ["-R", folder, _folder[name]]);
            copy.WaitForExit();
            Assert.Equal(0, copy.ExitCode);
        }
    }

    [Theory]
    [InlineData(1L << 20)]
    [InlineData(100L << 30)]
    public async Task A_cut_allocates_nothing_and_an_overlay_takes_next_to_no_room(long size)
    {
        await using VolumeDisk volume = await VolumeDisk.CreateAsync(NextFile(), size);
        for (int round = 0; round < 3; round++)
        {
            string path = NextFile();
            PreparedOverlay overlay = await volume.PrepareOverlayAsync(path);
            Assert.InRange(new FileInfo(path).Length, 1, 1 << 20);
            await volume.HoldAsync();
            long before = GC.GetAllocatedBytesForCurrentThread();
            VolumeCut cut = volume.Cut(overlay);
            long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            volume.Release();
            cut.Publish();
            await cut.DisposeAsync();
            Assert.Equal(0, allocated);
            await volume.WriteAsync(size - 512, Filled((byte)round, 512));
        }
    }

    [Fact]
    public async Task A_request_is_in_a_cut_as_a_whole_or_not_at_all()
    {
        // One after the other a guest writes a number to two places. A cut has the same number in both, or the first is one ahead.
        await using VolumeDisk volume = await VolumeDisk.CreateAsync(NextFile(), Size, clusterBits: 12);
        using CancellationTokenSource stop = new();
        Task writer = Task.Run(async () =>
        {
            byte[] number = new byte[4096];
            for (int next = 1; !stop.IsCancellationRequested; next++)
            {
                number.AsSpan().Fill((byte)next);
                BinaryPrimitives.WriteInt32LittleEndian(number, next);
                await volume.WriteAsync((1 + next % 7) * 65536, number);
                await volume.WriteAsync(0, number);
                await volume.WriteAsync(2 << 20, number);
                if (next % 64 == 0)
                {
                    await volume.DiscardAsync((1 + next % 7) * 65536, 65536);
                    await volume.FlushAsync();
                }
            }
        });
        for (int round = 0; round < 40; round++)
        {
            PreparedOverlay forVolume = await volume.PrepareOverlayAsync(NextFile());
            await using PreparedOverlay forClone = await volume.PrepareOverlayAsync(NextFile());
            await volume.HoldAsync();
            VolumeCut cut = volume.Cut(forVolume);
            volume.Release();
            cut.Publish();
            await using VolumeDisk clone = VolumeDisk.Open(forClone);
            await cut.DisposeAsync();
            byte[] first = await ReadAsync(clone, 0, 4096);
            byte[] second = await ReadAsync(clone, 2 << 20, 4096);
            Assert.InRange(BinaryPrimitives.ReadInt32LittleEndian(first) - BinaryPrimitives.ReadInt32LittleEndian(second), 0, 1);
            Assert.False(first.AsSpan(4).ContainsAnyExcept(first[4]));
            Assert.False(second.AsSpan(4).ContainsAnyExcept(second[4]));
        }

        await stop.CancelAsync();
        await writer;
    }

    [Fact]
    public async Task Requests_from_many_threads_do_not_disturb_each_other()
    {
        const int Threads = 4;
        const int Stripe = 2048;
        await using VolumeDisk volume = await VolumeDisk.CreateAsync(NextFile(), Size, clusterBits: 12);
        byte[] expected = new byte[Size];

        // Every cluster of 4 KiB belongs to two threads, so that they meet at every allocation.
        await Task.WhenAll(Enumerable.Range(0, Threads).Select(thread => Task.Run(async () =>
        {
            Random random = new(thread);
            for (int request = 0; request < 3000; request++)
            {
                int offset = (random.Next(Size / Stripe / Threads) * Threads + thread) * Stripe;
                switch (random.Next(10))
                {
                    case < 6:
                        byte[] data = new byte[Stripe];
                        random.NextBytes(data);
                        await volume.WriteAsync(offset, data);
                        data.CopyTo(expected, offset);
                        break;
                    case 6:
                        await volume.WriteZeroesAsync(offset, Stripe);
                        expected.AsSpan(offset, Stripe).Clear();
                        break;
                    case 7 when request % 20 == 0:
                        await volume.FlushAsync();
                        break;
                    default:
                        await AssertHoldsAsync(volume, offset, expected[offset..(offset + Stripe)]);
                        break;
                }
            }
        })));

        await AssertHoldsAsync(volume, 0, expected);
    }

    [Fact]
    public async Task A_flush_after_a_cut_waits_until_the_new_top_is_written_down()
    {
        await using VolumeDisk volume = await VolumeDisk.CreateAsync(NextFile(), Size);
        await volume.WriteAsync(0, Filled(1, 512));
        PreparedOverlay overlay = await volume.PrepareOverlayAsync(NextFile());
        await volume.HoldAsync();
        await using VolumeCut cut = volume.Cut(overlay);
        volume.Release();

        Task flush = volume.FlushAsync().AsTask();
        await cut.SealAsync();
        Assert.False(flush.IsCompleted);
        cut.Publish();
        await flush;

        PreparedOverlay next = await volume.PrepareOverlayAsync(NextFile());
        await volume.HoldAsync();
        await using VolumeCut failed = volume.Cut(next);
        volume.Release();
        bool isFull = true;
        failed.Defer(() =>
        {
            if (isFull)
            {
                throw new BlockDeviceException(BlockDeviceError.NoSpace, "books", "There is no room to write it down.");
            }

            failed.Publish();
        });
        Assert.False(volume.IsPublished);
        BlockDeviceException error = await Assert.ThrowsAsync<BlockDeviceException>(async () => await volume.FlushAsync());
        Assert.Equal("books", error.Device);
        isFull = false;
        await volume.FlushAsync();
        Assert.True(volume.IsPublished);
    }

    [Fact]
    public async Task A_cut_needs_held_requests_and_an_overlay_for_this_top()
    {
        await using VolumeDisk volume = await VolumeDisk.CreateAsync(NextFile(), Size);
        await using PreparedOverlay stale = await volume.PrepareOverlayAsync(NextFile());
        await using PreparedOverlay overlay = await volume.PrepareOverlayAsync(NextFile());
        Assert.Throws<InvalidOperationException>(() => volume.Cut(overlay));

        await volume.HoldAsync();
        await using VolumeCut cut = volume.Cut(overlay);
        cut.Publish();
        Assert.Throws<InvalidOperationException>(() => volume.Cut(stale));
        volume.Release();
    }

    [Fact]
    public async Task Requests_wait_while_they_are_held_back_and_can_be_cancelled()
    {
        await using VolumeDisk volume = await VolumeDisk.CreateAsync(NextFile(), Size);
        await volume.HoldAsync();
        using CancellationTokenSource cancelled = new();
        Task write = volume.WriteAsync(0, Filled(1, 512)).AsTask();
        Task given = volume.ReadAsync(0, new byte[512], cancelled.Token).AsTask();
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => given);
        Assert.False(write.IsCompleted);
        volume.Release();
        await write;
        await AssertHoldsAsync(volume, 0, Filled(1, 512));
    }

    [Fact]
    public async Task An_overlay_that_is_not_used_leaves_no_file()
    {
        await using VolumeDisk volume = await VolumeDisk.CreateAsync(NextFile(), Size);
        string path = NextFile();
        await (await volume.PrepareOverlayAsync(path)).DisposeAsync();
        Assert.False(File.Exists(path));
        await Assert.ThrowsAsync<DiskImageException>(() => volume.PrepareOverlayAsync(volume.TopPath));
    }

    [Fact]
    public async Task A_volume_grows_and_does_not_show_what_its_base_has_beyond_its_end()
    {
        string raw = _folder["base.raw"];
        await File.WriteAllBytesAsync(raw, Filled(9, 1 << 20));
        if (Qemu.UnmetReason is null)
        {
            string path = NextFile();
            Qemu.Img("create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", path, "100k");
            await using VolumeDisk volume = await VolumeDisk.OpenAsync(path);
            await volume.WriteAsync(99 * 1024, Filled(1, 512));
            await volume.ResizeAsync(Size);
            Assert.Equal(Size, volume.Size);
            byte[] expected = new byte[Size];
            expected.AsSpan(0, 100 * 1024).Fill(9);
            expected.AsSpan(99 * 1024, 512).Fill(1);
            await AssertHoldsAsync(volume, 0, expected);
            await Assert.ThrowsAsync<DiskImageException>(() => volume.ResizeAsync(Size - 512));
        }
    }

    [Fact]
    public async Task Volumes_share_the_images_they_are_based_on()
    {
        OpenLayers layers = new();
        await using VolumeDisk source = await VolumeDisk.CreateAsync(NextFile(), Size, layers: layers);
        await source.WriteAsync(0, Filled(1, 4096));
        string frozen = source.TopPath;
        await Assert.ThrowsAsync<DiskImageException>(() => VolumeDisk.OpenAsync(frozen, isReadOnly: true, layers: layers));

        PreparedOverlay overlay = await source.PrepareOverlayAsync(NextFile());
        await source.HoldAsync();
        VolumeCut cut = source.Cut(overlay);
        source.Release();
        cut.Publish();
        string clonePath = NextFile();
        await using (PreparedOverlay forClone = await cut.PrepareOverlayAsync(clonePath))
        await using (VolumeDisk clone = VolumeDisk.Open(forClone))
        {
            await clone.WriteAsync(4096, Filled(2, 4096));
            await clone.FlushAsync();
        }

        // By path, while the source still has the frozen image open for writing.
        await using VolumeDisk reader = await VolumeDisk.OpenAsync(frozen, isReadOnly: true, layers: layers);
        await using VolumeDisk again = await VolumeDisk.OpenAsync(clonePath, layers: layers);
        await cut.DisposeAsync();
        await source.WriteAsync(0, Filled(3, 4096));
        await AssertHoldsAsync(again, 0, Filled(1, 4096), Filled(2, 4096));
        await AssertHoldsAsync(reader, 0, Filled(1, 4096), new byte[4096]);
        await AssertHoldsAsync(source, 0, Filled(3, 4096), new byte[4096]);
        DiskImageException inUse = await Assert.ThrowsAsync<DiskImageException>(() => VolumeDisk.OpenAsync(frozen, layers: layers));
        Assert.Equal(DiskImageError.InUse, inUse.Error);
    }

    [Fact]
    public async Task Opening_and_closing_at_once_never_finds_a_base_that_is_being_closed()
    {
        OpenLayers layers = new();
        string basePath = NextFile();
        await (await VolumeDisk.CreateAsync(basePath, Size, layers: layers)).DisposeAsync();
        await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => Task.Run(async () =>
        {
            for (int round = 0; round < 200; round++)
            {
                await using VolumeDisk volume = await VolumeDisk.OpenAsync(basePath, isReadOnly: true, layers: layers);
                await AssertHoldsAsync(volume, 0, new byte[512]);
            }
        })));
    }

    [Fact]
    public async Task Ranges_and_lifetimes_are_checked()
    {
        VolumeDisk volume = await VolumeDisk.CreateAsync(NextFile(), Size);
        BlockDeviceException error = await Assert.ThrowsAsync<BlockDeviceException>(async () => await volume.WriteAsync(Size - 511, new byte[512]));
        Assert.Equal(BlockDeviceError.OutOfRange, error.Error);
        await Assert.ThrowsAsync<BlockDeviceException>(async () => await volume.DiscardAsync(-1, 2));
        await Assert.ThrowsAsync<BlockDeviceException>(async () => await volume.ReadAsync(long.MaxValue, new byte[1]));
        await Assert.ThrowsAsync<DiskImageException>(() => VolumeDisk.CreateAsync(NextFile(), 100));
        await volume.DisposeAsync();
        await volume.DisposeAsync();
        await Assert.ThrowsAsync<ObjectDisposedException>(async () => await volume.ReadAsync(0, new byte[1]));

        await using VolumeDisk reader = await VolumeDisk.OpenAsync(volume.TopPath, isReadOnly: true);
        Assert.True(reader.IsReadOnly);
        error = await Assert.ThrowsAsync<BlockDeviceException>(async () => await reader.WriteAsync(0, new byte[512]));
        Assert.Equal(BlockDeviceError.ReadOnly, error.Error);
        await reader.FlushAsync();
    }

    [Fact]
    public async Task A_raw_file_is_a_disk_and_read_only_a_rom()
    {
        string path = _folder["rom.raw"];
        await File.WriteAllBytesAsync(path, Filled(5, 1000));
        await using (RawBlockDevice rom = new(ImageFile.Open(path, isReadOnly: true)))
        {
            Assert.Equal(1024, rom.Size);
            await AssertHoldsAsync(rom, 0, Filled(5, 1000), new byte[24]);
            BlockDeviceException error = await Assert.ThrowsAsync<BlockDeviceException>(async () => await rom.WriteAsync(0, new byte[512]));
            Assert.Equal(BlockDeviceError.ReadOnly, error.Error);
        }

        using (ImageFile ragged = ImageFile.Open(path, isReadOnly: false))
        {
            Assert.Throws<DiskImageException>(() => new RawBlockDevice(ragged));
        }

        await File.WriteAllBytesAsync(path, Filled(5, 1024));
        await using RawBlockDevice disk = new(ImageFile.Open(path, isReadOnly: false));
        await disk.WriteAsync(512, Filled(6, 512));
        await disk.WriteZeroesAsync(100, 100);
        await disk.DiscardAsync(0, 512);
        await disk.FlushAsync();
        await AssertHoldsAsync(disk, 0, Filled(5, 100), new byte[100], Filled(5, 312), Filled(6, 512));
    }

    [Fact]
    public async Task The_test_kits_disks_keep_the_contract()
    {
        await using FaultInjectingBlockDevice disk = new(new MemoryBlockDevice(8192));
        await disk.WriteAsync(512, Filled(7, 512));
        disk.Fault = (operation, offset, _) => operation == BlockOperation.Write && offset == 0 ? BlockDeviceError.NoSpace : null;
        BlockDeviceException error = await Assert.ThrowsAsync<BlockDeviceException>(async () => await disk.WriteAsync(0, new byte[512]));
        Assert.True(error.IsTransient);
        disk.Fault = null;
        await disk.WriteAsync(0, Filled(8, 512));
        await AssertHoldsAsync(disk, 0, Filled(8, 512), Filled(7, 512));
    }

    private static byte[] Filled(byte value, int length)
    {
        byte[] bytes = new byte[length];
        bytes.AsSpan().Fill(value);
        return bytes;
    }

    private static async Task AssertHoldsAsync(IBlockDevice device, long offset, params byte[][] expected)
    {
        byte[] all = [.. expected.SelectMany(part => part)];
        byte[] found = await ReadAsync(device, offset, all.Length);
        DiskModel.AssertEqual(all, found, offset);
    }

    private static async Task<byte[]> ReadAsync(IBlockDevice device, long offset, int length)
    {
        byte[] bytes = new byte[length];
        await device.ReadAsync(offset, bytes);
        return bytes;
    }

    private string NextFile() => _folder[string.Create(CultureInfo.InvariantCulture, $"{_files++}.qcow2")];
}

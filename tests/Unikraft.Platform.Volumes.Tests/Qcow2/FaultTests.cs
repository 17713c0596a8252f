using System.Globalization;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes.Qcow2;
using Unikraft.Platform.Volumes.Tests.Testing;

namespace Unikraft.Platform.Volumes.Tests.Qcow2;

/// <summary>Each write in turn fails, and each read, and each flush; the disk is full, and then it is not.</summary>
[RequiresQemu]
public sealed class FaultTests : IDisposable
{
    private const int Size = 1 << 20;
    private const int Requests = 60;

    private readonly JudgedFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [ContractTheory]
    [InlineData(1, BlockDeviceError.InputOutput, true)]
    [InlineData(2, BlockDeviceError.NoSpace, true)]
    [InlineData(3, BlockDeviceError.InputOutput, false)]
    [InlineData(4, BlockDeviceError.NoSpace, false)]
    public void A_write_that_fails_costs_one_request(int seed, BlockDeviceError error, bool isTransient)
    {
        int failures = 0;
        for (int write = 0; ; write++)
        {
            FaultyFile faulty = new(NewImage()) { FailingWrite = write, Error = error, IsTransient = isTransient };
            if (!Play(seed, faulty, error))
            {
                break;
            }

            failures += faulty.Failures;
        }

        Assert.True(failures > Requests);
    }

    [ContractFact]
    public void A_read_that_fails_costs_one_request()
    {
        int failures = 0;

        // The first four open the image.
        for (int read = 4; ; read++)
        {
            FaultyFile faulty = new(NewImage()) { FailingRead = read, IsTransient = true };
            if (!Play(seed: 5, faulty, BlockDeviceError.InputOutput))
            {
                break;
            }

            failures += faulty.Failures;
        }

        Assert.InRange(failures, 30, 1000);
    }

    [ContractFact]
    public void A_full_disk_refuses_until_there_is_room()
    {
        for (int seed = 0; seed < 20; seed++)
        {
            MemoryImageFile file = NewImage();
            FaultyFile faulty = new(file) { Capacity = file.Length + seed * 16384 };
            Assert.True(Play(seed, faulty, BlockDeviceError.NoSpace));
        }
    }

    [ContractFact]
    public void After_a_flush_that_failed_nothing_is_promised_any_more()
    {
        for (int flush = 0; flush < 6; flush++)
        {
            MemoryImageFile file = NewImage();
            FaultyFile faulty = new(file) { FailingFlush = flush, IsTransient = true };
            Qcow2Image image = Qcow2Image.Open(faulty, Qcow2Header.Read(faulty), backing: null);
            BlockDeviceException? lost = null;
            for (int request = 0; lost is null; request++)
            {
                lost = Record(() =>
                {
                    image.Write(request * 4096, new byte[4096]);
                    image.Flush();
                });
            }

            Assert.Equal(BlockDeviceError.InputOutput, lost.Error);
            Assert.Equal(BlockDeviceError.InputOutput, Record(() => image.Write(0, new byte[512]))?.Error);
            Assert.Equal(BlockDeviceError.InputOutput, Record(image.Flush)?.Error);
            image.Read(0, new byte[512]);
            image.Release();

            // What is in the file is not known, but it is consistent.
            Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null).Release();
            file.SaveTo(_folder["image.qcow2"]);
            Assert.Empty(LeftImages.FindProblems(_folder.Path));
        }
    }

    [ContractTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void An_image_whose_repair_fails_is_repaired_the_next_time(bool isFlush)
    {
        (MemoryImageFile dirty, byte[] expected) = NewDirtyImage();
        int failures = 0;
        for (int at = 0; ; at++)
        {
            MemoryImageFile file = dirty.Copy();
            FaultyFile faulty = isFlush ? new(file) { FailingFlush = at } : new(file) { FailingWrite = at, Error = BlockDeviceError.NoSpace };
            if (Record(() => Qcow2Image.Open(faulty, Qcow2Header.Read(faulty), backing: null).Release()) is not { } failure)
            {
                break;
            }

            failures++;
            Assert.Equal(faulty.Error, failure.Error);
            AssertHolds(file, expected);
        }

        Assert.InRange(failures, 2, 100);
    }

    [ContractTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void An_image_that_cannot_be_made_is_not_one_and_is_made_the_next_time(bool isFlush)
    {
        int failures = 0;
        for (int at = 0; ; at++)
        {
            MemoryImageFile file = new();
            FaultyFile faulty = isFlush ? new(file) { FailingFlush = at } : new(file) { FailingWrite = at, Error = BlockDeviceError.NoSpace };
            if (Record(() => Qcow2Image.Create(faulty, Size, clusterBits: 12)) is not { } failure)
            {
                break;
            }

            failures++;
            Assert.Equal(faulty.Error, failure.Error);
            file = new MemoryImageFile();
            Qcow2Image.Create(file, Size, clusterBits: 12);
            AssertHolds(file, new byte[Size]);
        }

        Assert.InRange(failures, 1, 10);
    }

    [ContractTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_frozen_image_that_cannot_be_completed_is_completed_later(bool isFlush)
    {
        int failures = 0;
        for (int at = 0; ; at++)
        {
            (MemoryImageFile file, byte[] expected) = (NewImage(), new byte[Size]);
            FaultyFile faulty = new(file) { Error = BlockDeviceError.NoSpace };
            Qcow2Image frozen = Qcow2Image.Open(faulty, Qcow2Header.Read(faulty), backing: null, cacheBytes: 16 << 10);
            Random random = new(at);
            for (int request = 0; request < 20; request++)
            {
                int offset = random.Next(Size / 512 - 100) * 512;
                byte[] data = new byte[random.Next(1, 100) * 512];
                random.NextBytes(data);
                frozen.Write(offset, data);
                data.CopyTo(expected, offset);
            }

            // What a guest has put on it since.
            MemoryImageFile overlay = new("/memory/overlay.qcow2");
            Qcow2Image top = Qcow2Image.CreateNew(overlay, Size, clusterBits: 12, frozen);
            frozen.Freeze();
            byte[] mine = new byte[4096];
            random.NextBytes(mine);
            top.Write(512, mine);
            (faulty.FailingWrite, faulty.FailingFlush) = isFlush ? ((int?)null, (int?)(faulty.Flushes + at)) : (faulty.Writes + at, null);
            BlockDeviceException? failure = Record(top.Flush);
            if (failure is not null)
            {
                failures++;
                byte[] all = new byte[Size];
                top.Read(0, all);
                DiskModel.AssertEqual([.. expected.AsSpan(0, 512), .. mine, .. expected.AsSpan(512 + mine.Length)], all, 0);
                Recover(faulty);

                // A flush that failed is final until the image is opened again; room is enough for anything else.
                Assert.Equal(isFlush, Record(top.Flush) is not null);
            }

            _ = Record(top.Release);
            AssertHolds(file, isFlush && failure is not null ? null : expected);
            if (failure is null)
            {
                break;
            }
        }

        Assert.InRange(failures, 2, 200);
    }

    /// <summary>Plays random requests. What fails is asked for again when the fault is gone, and then succeeds.</summary>
    /// <returns>Whether anything failed.</returns>
    private bool Play(int seed, FaultyFile faulty, BlockDeviceError error)
    {
        Random random = new(seed);
        byte[] expected = new byte[Size];
        Qcow2Image image = Qcow2Image.Open(faulty, Qcow2Header.Read(faulty), backing: null, cacheBytes: 16 << 10);
        for (int request = 0; request < Requests; request++)
        {
            int offset = random.Next(expected.Length / 512) * 512;
            int length = Math.Min(random.Next(1, 100) * 512, expected.Length - offset);
            byte[] data = new byte[length];
            random.NextBytes(data);
            int kind = random.Next(24);
            byte[] before = expected[offset..(offset + length)];
            int size = expected.Length + (kind == 23 ? random.Next(1, 2000) * 512 : 0);
            Action act = kind switch
            {
                < 12 => () => image.Write(offset, data),
                < 16 => () => image.WriteZeroes(offset, length),
                < 19 => () => image.Discard(offset, length),
                < 23 => image.Flush,
                _ => () => image.Resize(size),
            };
            byte[] after = kind switch { < 12 => data, < 19 => new byte[length], _ => before };
            if (Record(act) is { } failure)
            {
                Assert.Equal(error, failure.Error);
                Recover(faulty);
                AssertIsOneOf(image, offset, before, after);
                act();
            }

            if (kind is >= 16 and < 19)
            {
                // As it was or zeroes.
                AssertIsOneOf(image, offset, before, after);
                image.Read(offset, after);
            }

            after.CopyTo(expected, offset);
            Array.Resize(ref expected, size);
            Assert.Equal(size, image.Size);
        }

        byte[] all = new byte[expected.Length];
        if (Record(() => image.Read(0, all)) is not null)
        {
            Recover(faulty);
            image.Read(0, all);
        }

        DiskModel.AssertEqual(expected, all, 0);
        if (Record(image.Flush) is { } unflushed)
        {
            Assert.Equal(error, unflushed.Error);
            Recover(faulty);
            image.Flush();
        }

        // What was flushed needs no closing.
        if (Record(image.Release) is { } unclosed)
        {
            Assert.Equal(error, unclosed.Error);
            Recover(faulty);
            image = Qcow2Image.Open(faulty, Qcow2Header.Read(faulty), backing: null);
            image.Read(0, all);
            DiskModel.AssertEqual(expected, all, 0);
            image.Release();
        }

        if (faulty.Failures > 0)
        {
            faulty.SaveTo(_folder["image.qcow2"]);
            File.WriteAllBytes(_folder["reference.raw"], expected);
            Qemu.AssertClean(_folder["image.qcow2"]);
            Qemu.AssertEqual(_folder["image.qcow2"], _folder["reference.raw"]);
        }

        return faulty.Failures > 0;
    }

    private static void AssertIsOneOf(Qcow2Image image, int offset, byte[] before, byte[] after)
    {
        byte[] now = new byte[before.Length];
        image.Read(offset, now);
        for (int block = 0; block < now.Length; block += 512)
        {
            ReadOnlySpan<byte> found = now.AsSpan(block, 512);
            Assert.True(found.SequenceEqual(before.AsSpan(block, 512)) || found.SequenceEqual(after.AsSpan(block, 512)) || IsTorn(found, before, after, block));
        }
    }

    /// <summary>A file is an image without a fault, and holds what it should; <see langword="null"/> for whatever it does.</summary>
    private void AssertHolds(MemoryImageFile file, byte[]? expected)
    {
        Qcow2Image image = Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null);
        byte[] all = new byte[image.Size];
        image.Read(0, all);
        image.Release();
        DiskModel.AssertEqual(expected ?? all, all, 0);
        file.SaveTo(_folder["image.qcow2"]);
        File.WriteAllBytes(_folder["reference.raw"], all);
        Qemu.AssertClean(_folder["image.qcow2"]);
        Qemu.AssertEqual(_folder["image.qcow2"], _folder["reference.raw"]);
    }

    private static (MemoryImageFile File, byte[] Contents) NewDirtyImage()
    {
        MemoryImageFile file = NewImage();
        byte[] contents = new byte[Size];
        Random random = new(9);
        Qcow2Image image = Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null);
        for (int offset = 0; offset < Size; offset += 3 * 4096)
        {
            random.NextBytes(contents.AsSpan(offset, 4096));
            image.Write(offset, contents.AsSpan(offset, 4096));
        }

        image.Flush();
        return (file.Copy(), contents);
    }

    // The file fails in the middle of a write, which need not be between two blocks.
    private static bool IsTorn(ReadOnlySpan<byte> found, byte[] before, byte[] after, int block)
    {
        int written = found.CommonPrefixLength(after.AsSpan(block, 512));
        return found[written..].SequenceEqual(before.AsSpan(block + written, 512 - written));
    }

    private static void Recover(FaultyFile faulty)
    {
        faulty.Capacity = long.MaxValue;
        faulty.FailingWrite = faulty.FailingRead = faulty.FailingFlush = null;
    }

    private static MemoryImageFile NewImage()
    {
        MemoryImageFile file = new();
        Qcow2Image.Create(file, Size, clusterBits: 12);
        return file;
    }

    private static BlockDeviceException? Record(Action action)
    {
        try
        {
            action();
            return null;
        }
        catch (BlockDeviceException error)
        {
            return error;
        }
    }
}

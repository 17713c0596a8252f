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

    private readonly TestFolder _folder = new();

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
        // The first four open the image.
        for (int read = 4; Play(seed: 5, new FaultyFile(NewImage()) { FailingRead = read, IsTransient = true }, BlockDeviceError.InputOutput); read++)
        {
        }
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
            Qemu.AssertClean(_folder["image.qcow2"]);
        }
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
            int offset = random.Next(Size / 512) * 512;
            int length = Math.Min(random.Next(1, 100) * 512, Size - offset);
            byte[] data = new byte[length];
            random.NextBytes(data);
            int kind = random.Next(10);
            byte[] before = expected[offset..(offset + length)];
            Action act = kind switch
            {
                < 6 => () => image.Write(offset, data),
                < 8 => () => image.WriteZeroes(offset, length),
                _ => image.Flush,
            };
            byte[] after = kind switch { < 6 => data, < 8 => new byte[length], _ => before };
            if (Record(act) is { } failure)
            {
                Assert.Equal(error, failure.Error);
                Recover(faulty);
                byte[] now = new byte[length];
                image.Read(offset, now);
                for (int block = 0; block < length; block += 512)
                {
                    ReadOnlySpan<byte> found = now.AsSpan(block, 512);
                    Assert.True(
                        found.SequenceEqual(before.AsSpan(block, 512)) || found.SequenceEqual(after.AsSpan(block, 512)) || IsTorn(found, before, after, block));
                }

                act();
            }

            after.CopyTo(expected, offset);
        }

        byte[] all = new byte[Size];
        if (Record(() => image.Read(0, all)) is not null)
        {
            Recover(faulty);
            image.Read(0, all);
        }

        DiskModel.AssertEqual(expected, all, 0);
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

using System.Globalization;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes.Qcow2;
using Unikraft.Platform.Volumes.Tests.Testing;

namespace Unikraft.Platform.Volumes.Tests.Qcow2;

/// <summary>Requests that meet in one image.</summary>
public sealed class ConcurrencyTests : IDisposable
{
    private const int Cluster = 4096;

    private readonly JudgedFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_cluster_is_not_used_again_while_somebody_is_reading_it()
    {
        MemoryImageFile found = NewImage(1 << 20);
        GatedFile file = new(found);
        Qcow2Image image = Open(file);
        image.Write(0, Filled(1));
        image.Flush();

        // The read has found where the data is, and is held up before it gets there.
        file.HoldNextRead();
        byte[] read = new byte[Cluster];
        Task reading = Task.Run(() => image.Read(0, read));
        await file.IsHeld;
        image.Discard(0, Cluster);
        for (int other = 1; other < 40; other++)
        {
            image.Flush();
            image.Write(other * Cluster, Filled(2));
        }

        file.LetGo();
        await reading;
        DiskModel.AssertEqual(Filled(1), read, 0);

        // Then it is used again, as the next new cluster or a later one.
        long length = file.Length;
        image.Flush();
        image.Write(100 * Cluster, Filled(3));
        Assert.Equal(length, file.Length);
        image.Release();
        found.SaveTo(_folder["image.qcow2"]);
    }

    [Fact]
    public async Task A_write_to_an_old_cluster_waits_for_no_allocation()
    {
        MemoryImageFile found = NewImage(1 << 20);
        GatedFile file = new(found);
        Qcow2Image image = Open(file);
        image.Write(0, Filled(1));

        // An allocating write holds the lock, and is held up in it.
        file.HoldNextWrite();
        Task allocating = Task.Run(() => image.Write(5 * Cluster, Filled(2)));
        await file.IsHeld;
        image.Write(0, Filled(3));
        byte[] read = new byte[Cluster];
        image.Read(0, read);
        DiskModel.AssertEqual(Filled(3), read, 0);
        Assert.False(allocating.IsCompleted);
        file.LetGo();
        await allocating;
        image.Read(5 * Cluster, read);
        DiskModel.AssertEqual(Filled(2), read, 0);
        image.Release();
        found.SaveTo(_folder["image.qcow2"]);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Threads_with_next_to_no_cache_do_not_disturb_each_other(int seed)
    {
        const int Threads = 4;
        const int Stripe = 1024;
        const int Size = 48 << 20;
        MemoryImageFile file = NewImage(Size);
        Qcow2Image image = Open(file, cacheBytes: 16 << 10);
        byte[] expected = new byte[Size];

        // Far apart, so that every request needs another part of the mapping; and always two threads in one cluster.
        await Task.WhenAll(Enumerable.Range(0, Threads).Select(thread => Task.Run(() =>
        {
            Random random = new(seed * 100 + thread);
            byte[] read = new byte[Stripe];
            for (int request = 0; request < 4000; request++)
            {
                int offset = ((random.Next(24) << 21) + random.Next(8) * Cluster) % Size + thread * Stripe;
                Span<byte> mine = expected.AsSpan(offset, Stripe);
                switch (random.Next(10))
                {
                    case < 5:
                        random.NextBytes(mine);
                        image.Write(offset, mine);
                        break;
                    case 5:
                        image.WriteZeroes(offset, Stripe);
                        mine.Clear();
                        break;
                    case 6 when request % 10 == 0:
                        image.Flush();
                        break;
                    default:
                        image.Read(offset, read);
                        DiskModel.AssertEqual(mine, read, offset);
                        break;
                }
            }
        })));

        byte[] all = new byte[Size];
        image.Read(0, all);
        DiskModel.AssertEqual(expected, all, 0);
        image.Release();
        file.SaveTo(_folder["image.qcow2"]);
    }

    private static MemoryImageFile NewImage(int size)
    {
        MemoryImageFile file = new();
        Qcow2Image.Create(file, size, clusterBits: 12);
        return file;
    }

    private static Qcow2Image Open(IImageFile file, int cacheBytes = Qcow2Image.DefaultCacheBytes) =>
        Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null, cacheBytes);

    private static byte[] Filled(byte value)
    {
        byte[] bytes = new byte[Cluster];
        bytes.AsSpan().Fill(value);
        return bytes;
    }

    /// <summary>A file in which one access to data stops until the test lets it go on.</summary>
    private sealed class GatedFile(MemoryImageFile file) : IImageFile
    {
        private readonly TaskCompletionSource _isHeld = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly ManualResetEventSlim _gate = new();
        private int _readsToHold;
        private int _writesToHold;

        public string Path => file.Path;

        public bool IsReadOnly => false;

        public long Length => file.Length;

        internal Task IsHeld => _isHeld.Task.WaitAsync(TimeSpan.FromSeconds(30), TimeProvider.System);

        public void Dispose() => _gate.Dispose();

        public int Read(long offset, Span<byte> buffer)
        {
            Pass(ref _readsToHold);
            return file.Read(offset, buffer);
        }

        public void Write(long offset, ReadOnlySpan<byte> data)
        {
            Pass(ref _writesToHold);
            file.Write(offset, data);
        }

        public void SetLength(long length) => file.SetLength(length);

        public void Flush() => file.Flush();

        internal void HoldNextRead() => _readsToHold = 1;

        internal void HoldNextWrite() => _writesToHold = 1;

        internal void LetGo() => _gate.Set();

        private void Pass(ref int toHold)
        {
            if (Interlocked.Exchange(ref toHold, 0) == 1)
            {
                _isHeld.SetResult();
                Assert.True(_gate.Wait(TimeSpan.FromSeconds(30)), string.Create(CultureInfo.InvariantCulture, $"nobody let {Path} go on"));
            }
        }
    }
}

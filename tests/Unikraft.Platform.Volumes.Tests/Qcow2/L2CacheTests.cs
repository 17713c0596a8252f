using Unikraft.Platform.Volumes.Qcow2;
using Unikraft.Platform.Volumes.Tests.Testing;

namespace Unikraft.Platform.Volumes.Tests.Qcow2;

public sealed class L2CacheTests
{
    private const int SliceBytes = 4096;

    [Fact]
    public void A_slice_that_changes_takes_the_place_of_an_older_copy_of_itself()
    {
        L2Cache cache = new(new MemoryImageFile(), clusterBits: 12, cacheBytes: 4 * SliceBytes, metadata: null);
        L2Slice slice = cache.Get(0, SliceBytes);
        for (int other = 1; other < 20; other++)
        {
            _ = cache.Get(other, SliceBytes * other);
        }

        // Somebody else has read it again meanwhile.
        Assert.NotSame(slice, cache.Get(0, SliceBytes));
        cache.MarkChanged(slice);
        Assert.Same(slice, cache.Find(0));
        Assert.Same(slice, cache.Get(0, SliceBytes));
    }

    [Fact]
    public void What_has_changed_is_kept_until_it_is_stored()
    {
        MemoryImageFile file = new();
        L2Cache cache = new(file, clusterBits: 12, cacheBytes: 4 * SliceBytes, metadata: null);
        L2Slice slice = cache.Get(0, SliceBytes);
        cache.MarkChanged(slice);
        slice[7] = 0x1234;
        for (int other = 1; other < 20; other++)
        {
            _ = cache.Get(other, SliceBytes * other);
        }

        Assert.Same(slice, cache.Get(0, SliceBytes));
        Assert.False(cache.HasTooManyChanges);
        cache.MarkChanged(cache.Get(1, SliceBytes));
        Assert.True(cache.HasTooManyChanges);
        cache.Store(slice);
        cache.ForgetChanges();
        for (int other = 1; other < 20; other++)
        {
            _ = cache.Get(other, SliceBytes * other);
        }

        L2Slice again = cache.Get(0, SliceBytes);
        Assert.NotSame(slice, again);
        Assert.Equal(0x1234UL, again[7]);
    }

    /// <summary>However much of a chain is read and written, each of its images keeps as much of its mapping as it may, and no more.</summary>
    [Fact]
    public void A_long_chain_takes_no_more_memory_than_its_images_may()
    {
        const int Images = 40;
        const int CacheBytes = 4 * SliceBytes;
        const int ClusterBits = 12;
        const int SliceCovers = SliceBytes / sizeof(ulong) << ClusterBits;
        const int Slices = 32;
        const long Size = (long)Slices * SliceCovers;
        Random random = new(1);
        Dictionary<long, byte> written = [];
        List<Qcow2Image> chain = [];
        for (int depth = 0; depth < Images; depth++)
        {
            Qcow2Image image = Qcow2Image.CreateNew(new MemoryImageFile($"/memory/{depth}.qcow2"), Size, ClusterBits, chain.LastOrDefault(), CacheBytes);
            chain.LastOrDefault()?.Freeze();
            chain.Add(image);

            // A cluster beneath each part of the mapping, so that all of them are wanted.
            for (int slice = 0; slice < Slices; slice++)
            {
                long offset = (long)slice * SliceCovers + (random.Next(512) << ClusterBits);
                image.Write(offset, [(byte)(depth + 1)]);
                written[offset] = (byte)(depth + 1);
                Assert.InRange(image.CachedBytes, SliceBytes, 3 * CacheBytes / 2);
            }

            image.Flush();
        }

        foreach ((long offset, byte value) in written)
        {
            byte[] read = new byte[1];
            chain[^1].Read(offset, read);
            Assert.Equal(value, read[0]);
        }

        Assert.All(chain.SkipLast(1), image => Assert.Equal(CacheBytes, image.CachedBytes));
        Assert.InRange(chain[^1].CachedBytes, SliceBytes, 3 * CacheBytes / 2);
        chain[^1].Release();
    }
}

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
}

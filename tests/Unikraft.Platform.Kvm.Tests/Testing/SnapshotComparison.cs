using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>What snapshots of a machine store, against the one thing that cannot err: a comparison of all pages at one cut with those at the cut before.</summary>
internal sealed class SnapshotComparison(GuestMemory memory)
{
    private readonly HashSet<MemoryLayer> _known = [];
    private byte[] _before = new byte[memory.Size];
    private byte[] _atCut = new byte[memory.Size];

    /// <summary>Copies all pages; to be called in the cut.</summary>
    internal void Copy() => memory.Read(0, _atCut.Length).CopyTo(_atCut);

    /// <summary>Every page that has changed since the last cut is in what the snapshot stores.</summary>
    /// <returns>How many pages have changed, and which are stored although they have not.</returns>
    internal (int Changed, IReadOnlyList<int> Rewritten) AssertStored(KvmSnapshot snapshot, string title)
    {
        using PageMap map = snapshot.ShareMemory();
        PageBitmap stored = new(_atCut.Length >> PageSize.Shift);
        foreach (PageExtent extent in map.Extents.ToArray().Where(extent => !_known.Contains(extent.Layer)))
        {
            for (int page = extent.Start; page < extent.End; page++)
            {
                stored.Set(page);
            }
        }

        int changed = 0;
        List<int> rewritten = [];
        for (int page = 0; page < stored.Pages; page++)
        {
            bool isChanged = !Page(_atCut, page).SequenceEqual(Page(_before, page));
            Assert.True(stored[page] || !isChanged || !Page(_atCut, page).ContainsAnyExcept((byte)0), $"{title}: page {page} has changed and was not stored.");
            changed += isChanged ? 1 : 0;
            if (stored[page] && !isChanged)
            {
                rewritten.Add(page);
            }
        }

        _known.UnionWith(map.Extents.ToArray().Select(extent => extent.Layer));
        (_before, _atCut) = (_atCut, _before);
        return (changed, rewritten);

        static ReadOnlySpan<byte> Page(byte[] memory, int page) => memory.AsSpan(page << PageSize.Shift, PageSize.Bytes);
    }
}

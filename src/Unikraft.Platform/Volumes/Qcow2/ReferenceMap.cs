using System.Globalization;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>How often each cluster of a file is referred to.</summary>
internal sealed class ReferenceMap(string path)
{
    private const int PageBits = 12;

    /// <summary>256 MiB of counts: 8 TiB of data in clusters of 64 KiB.</summary>
    private const int MaxPages = 1 << 15;

    /// <summary>Marks a cluster that nobody may share.</summary>
    private const ushort Exclusive = 1 << 15;

    private readonly Dictionary<long, ushort[]> _pages = [];

    /// <summary>The last cluster that is referred to.</summary>
    internal long Last { get; private set; }

    /// <summary>Begins with what every file has: its header and the first table of its mapping.</summary>
    internal static ReferenceMap Begin(IImageFile file, Qcow2Header header)
    {
        ReferenceMap references = new(file.Path);
        references.Add(0, isExclusive: true);
        for (long cluster = 0; cluster << header.ClusterBits < header.L1Entries * (long)sizeof(ulong); cluster++)
        {
            references.Add((header.L1Offset >> header.ClusterBits) + cluster, isExclusive: true);
        }

        return references;
    }

    internal int CountOf(long cluster) =>
        _pages.TryGetValue(cluster >> PageBits, out ushort[]? page) ? page[cluster & ((1 << PageBits) - 1)] & ~Exclusive : 0;

    /// <summary>The runs of clusters that hold anything referred to, each as long as the given number.</summary>
    internal IEnumerable<long> Windows(long clusters) => _pages
        .SelectMany(page => Enumerable.Range(0, 1 << PageBits).Where(index => page.Value[index] != 0).Select(index => (page.Key << PageBits) + index))
        .Select(cluster => cluster / clusters)
        .Distinct();

    /// <summary>Notes a reference.</summary>
    /// <exception cref="DiskImageException">Two that exclude each other.</exception>
    internal void Add(long cluster, bool isExclusive)
    {
        if (!_pages.TryGetValue(cluster >> PageBits, out ushort[]? page))
        {
            if (_pages.Count == MaxPages)
            {
                throw new DiskImageException(
                    DiskImageError.Unsupported,
                    path,
                    $"The disk image '{path}' was not closed and is too large to be repaired here. Repair it with qemu-img check -r all.");
            }

            page = new ushort[1 << PageBits];
            _pages.Add(cluster >> PageBits, page);
        }

        ref ushort count = ref page[cluster & ((1 << PageBits) - 1)];
        if ((count & Exclusive) != 0 || (isExclusive && count != 0) || count == Exclusive - 1)
        {
            throw new DiskImageException(
                DiskImageError.Corrupt,
                path,
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"The disk image '{path}' is corrupt: its cluster {cluster} is used for two things. Try qemu-img check -r all, or take a copy that is whole."));
        }

        count = isExclusive ? (ushort)(Exclusive | 1) : (ushort)(count + 1);
        Last = Math.Max(Last, cluster);
    }
}

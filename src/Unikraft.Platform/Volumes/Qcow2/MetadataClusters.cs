using System.Globalization;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>
/// The clusters that hold the header and the tables. An image from elsewhere may claim that one of them is free, or part of the disk: nothing
/// is allocated or mapped there.
/// </summary>
/// <remarks>Safe for concurrent use.</remarks>
internal sealed class MetadataClusters(IImageFile file, int clusterBits)
{
    private readonly Lock _lock = new();
    private readonly HashSet<long> _clusters = [0];

    internal void Add(long first, long count)
    {
        lock (_lock)
        {
            for (long cluster = first; cluster < first + count; cluster++)
            {
                _ = _clusters.Add(cluster);
            }
        }
    }

    internal void Remove(long first, long count)
    {
        lock (_lock)
        {
            for (long cluster = first; cluster < first + count; cluster++)
            {
                _ = _clusters.Remove(cluster);
            }
        }
    }

    /// <summary>Adds the clusters of a table that an image has.</summary>
    /// <exception cref="DiskImageException">They are not in the file, or hold something else as well.</exception>
    internal void Claim(long offset, long bytes)
    {
        long first = offset >> clusterBits;
        long end = (offset + bytes + (1L << clusterBits) - 1) >> clusterBits;
        if (offset <= 0 || (offset & ((1L << clusterBits) - 1)) != 0 || end > (file.Length + (1L << clusterBits) - 1) >> clusterBits)
        {
            throw Corrupt(offset, "outside the file");
        }

        lock (_lock)
        {
            for (long cluster = first; cluster < end; cluster++)
            {
                if (!_clusters.Add(cluster))
                {
                    throw Corrupt(offset, "where something else is");
                }
            }
        }
    }

    /// <exception cref="BlockDeviceException">One of the clusters is not free, whatever the refcounts say.</exception>
    internal void ThrowIfAny(long first, long count)
    {
        lock (_lock)
        {
            for (long cluster = first; cluster < first + count; cluster++)
            {
                if (_clusters.Contains(cluster))
                {
                    throw new BlockDeviceException(
                        BlockDeviceError.Corrupt,
                        file.Path,
                        string.Create(
                            CultureInfo.InvariantCulture,
                            $"The disk image '{file.Path}' is corrupt: cluster {cluster} is in use and not counted as such. Repair it with qemu-img check -r all."));
                }
            }
        }
    }

    private DiskImageException Corrupt(long offset, string where) => new(
        DiskImageError.Corrupt,
        file.Path,
        string.Create(
            CultureInfo.InvariantCulture,
            $"The disk image '{file.Path}' is corrupt: it has a table at byte {offset}, {where}. Try qemu-img check, or take a copy that is whole."));
}

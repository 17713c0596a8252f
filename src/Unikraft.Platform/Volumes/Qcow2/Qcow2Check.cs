using System.Globalization;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>
/// Compares what an image that was closed says of itself: every cluster of the file belongs to exactly what refers to it, and is counted so. Guests write to such images, so that
/// there is no checksum of their contents; but a mapping that has changed by itself contradicts the counts.
/// </summary>
internal static class Qcow2Check
{
    /// <summary>Checks an image, which is not changed. One that was not closed is what its next opening makes of it.</summary>
    /// <param name="file">The image, to which nobody writes.</param>
    /// <param name="size">The size of the disk in bytes.</param>
    /// <param name="cancellationToken">Cancels the check.</param>
    /// <exception cref="DiskImageException">It contradicts itself.</exception>
    /// <exception cref="BlockDeviceException">The host cannot read it.</exception>
    internal static void Verify(IImageFile file, long size, CancellationToken cancellationToken)
    {
        Qcow2Header header = Qcow2Header.Read(file);
        Require(file, header.Size == size, string.Create(CultureInfo.InvariantCulture, $"it says that its disk has {header.Size} bytes and not {size}"));
        if (header.IsDirty || header.Version < 3 || header.InternalSnapshots > 0 || header.HasBitmaps)
        {
            return;
        }

        // Images that were made here are whole clusters when they are closed.
        Require(file, header.Identity is null || file.Length % header.ClusterSize == 0, "its end is missing");
        ReferenceMap references = CountMapping(file, header, cancellationToken);
        int bits = header.ClusterBits;
        for (long cluster = 0; cluster < header.RefcountTableClusters; cluster++)
        {
            references.Add((header.RefcountTableOffset >> bits) + cluster, isExclusive: true);
        }

        ulong[] table = EntryTable.Read(file, header.RefcountTableOffset, (int)(((long)header.RefcountTableClusters << bits) / sizeof(ulong)));
        long clusters = (file.Length + header.ClusterSize - 1) >> bits;
        foreach (ulong block in table)
        {
            Require(file, (block & ((1UL << bits) - 1)) == 0 && block >> bits < (ulong)clusters, "its refcounts are where there is nothing");
            if (block != 0)
            {
                references.Add((long)(block >> bits), isExclusive: true);
            }
        }

        int perBlock = (int)((8L << bits) >> header.RefcountOrder);
        HashSet<long> windows = [.. references.Windows(perBlock)];
        byte[] bytes = new byte[header.ClusterSize];
        for (int window = 0; window < table.Length; window++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (table[window] == 0)
            {
                Require(file, !windows.Contains(window), "it uses clusters that are not counted");
                continue;
            }

            bytes.AsSpan(file.Read((long)table[window], bytes)).Clear();
            RefcountBlock block = new(bytes, header.RefcountOrder);
            for (int index = 0; index < perBlock; index++)
            {
                long cluster = ((long)window * perBlock) + index;
                int expected = references.CountOf(cluster);
                Require(file, block[index] == (ulong)expected, $"its cluster {cluster} is referred to {expected} times and counted {block[index]} times");
            }
        }

        Require(file, windows.All(window => window < table.Length), "it uses clusters that are not counted");
    }

    private static ReferenceMap CountMapping(IImageFile file, Qcow2Header header, CancellationToken cancellationToken)
    {
        int bits = header.ClusterBits;
        long clusters = (file.Length + header.ClusterSize - 1) >> bits;
        ReferenceMap references = ReferenceMap.Begin(file, header);
        ulong[] l1 = EntryTable.Read(file, header.L1Offset, header.L1Entries);
        foreach (ulong entry in l1.Where(static entry => entry != 0))
        {
            cancellationToken.ThrowIfCancellationRequested();
            long table = MappingEntry.Offset(entry);
            Require(
                file,
                MappingEntry.IsWellFormedL1(entry, bits) && (entry & MappingEntry.Copied) != 0 && table != 0 && table >> bits < clusters,
                "its L1 table refers to where there is nothing");
            references.Add(table >> bits, isExclusive: true);
            foreach (ulong mapped in EntryTable.Read(file, table, header.ClusterSize / sizeof(ulong)).Where(static mapped => mapped != 0))
            {
                Count(file, references, mapped, bits, clusters);
            }
        }

        return references;
    }

    private static void Count(IImageFile file, ReferenceMap references, ulong entry, int bits, long clusters)
    {
        const string Nowhere = "one of its L2 tables refers to where there is nothing";
        Require(file, MappingEntry.IsWellFormedL2(entry, bits), Nowhere);
        switch (MappingEntry.KindOf(entry))
        {
            case ClusterKind.Compressed:
                (long start, int length) = MappingEntry.CompressedRange(entry, bits);
                for (long cluster = start >> bits; cluster <= (start + length - 1) >> bits; cluster++)
                {
                    Require(file, cluster < clusters, Nowhere);
                    references.Add(cluster, isExclusive: false);
                }

                break;
            case ClusterKind.Data:
                Require(file, (entry & MappingEntry.Copied) != 0 && MappingEntry.Offset(entry) >> bits < clusters, Nowhere);
                references.Add(MappingEntry.Offset(entry) >> bits, isExclusive: true);
                break;
            default:
                // Zeroes take no cluster in images that are written here.
                Require(file, entry == MappingEntry.Zero, "one of its L2 tables has zeroes that take a cluster");
                break;
        }
    }

    private static void Require(IImageFile file, bool isMet, string what)
    {
        if (!isMet)
        {
            throw new DiskImageException(
                DiskImageError.Corrupt,
                file.Path,
                $"The disk image '{file.Path}' is corrupt: {what}. Put a sound copy of it there, or take what it has with qemu-img convert.");
        }
    }
}

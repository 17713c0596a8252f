using System.Buffers.Binary;
using System.Globalization;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>
/// Makes the reference counts of an image anew from its mapping, which is what an image needs that was not closed. Can be interrupted at any
/// point: the image stays marked until all is durable, and nothing that the mapping refers to is written over.
/// </summary>
internal static class Qcow2Repair
{
    /// <summary>Repairs an image.</summary>
    /// <returns>The header it has now.</returns>
    /// <exception cref="DiskImageException">The mapping contradicts itself, so that nobody can tell what belongs to whom.</exception>
    internal static Qcow2Header Rebuild(IImageFile file, Qcow2Header header)
    {
        ReferenceMap references = CountReferences(file, header);
        int bits = header.ClusterBits;
        long perBlock = (8L << bits) >> header.RefcountOrder;
        SortedSet<long> windows = [.. references.Windows(perBlock)];

        // The counts themselves go behind everything else, and are counted too.
        long first = references.Last + 1;
        long tableClusters;
        long end;
        do
        {
            tableClusters = (((windows.Max + 1) * sizeof(ulong)) + header.ClusterSize - 1) >> bits;
            end = first + tableClusters + windows.Count;
        }
        while (AddWindows(windows, first / perBlock, (end - 1) / perBlock));

        if (tableClusters << bits > Math.Max(Qcow2Header.MaxRefcountTableBytes, header.ClusterSize))
        {
            throw new DiskImageException(
                DiskImageError.Corrupt,
                file.Path,
                $"The disk image '{file.Path}' is corrupt: it refers to clusters farther away than refcounts can reach. Take a copy that is whole.");
        }

        byte[] table = new byte[tableClusters << bits];
        long block = first + tableClusters;
        foreach (long window in windows)
        {
            BinaryPrimitives.WriteInt64BigEndian(table.AsSpan((int)window * sizeof(ulong)), block << bits);
            file.Write(block << bits, MakeBlock(file, header, references, window, first, end));
            block++;
        }

        file.Write(first << bits, table);

        // What was written farther behind and is referred to by nothing may end anywhere.
        if (file.Length is var length && length % header.ClusterSize != 0)
        {
            file.SetLength((length + header.ClusterSize - 1) & -(long)header.ClusterSize);
        }

        file.Flush();

        Qcow2Header repaired = header.Clone();
        repaired.RefcountTableOffset = first << bits;
        repaired.RefcountTableClusters = (int)tableClusters;
        repaired.IsDirty = false;
        file.Write(0, repaired.ToSector());
        file.Flush();
        return repaired;
    }

    private static bool AddWindows(SortedSet<long> windows, long first, long last)
    {
        bool isAdded = false;
        for (long window = first; window <= last; window++)
        {
            isAdded |= windows.Add(window);
        }

        return isAdded;
    }

    private static byte[] MakeBlock(IImageFile file, Qcow2Header header, ReferenceMap references, long window, long first, long end)
    {
        RefcountBlock block = new(new byte[header.ClusterSize], header.RefcountOrder);
        long perBlock = (8L << header.ClusterBits) >> header.RefcountOrder;
        ulong most = header.RefcountOrder == RefcountBlocks.MaxOrder ? ulong.MaxValue : (1UL << (1 << header.RefcountOrder)) - 1;
        for (int index = 0; index < perBlock; index++)
        {
            long cluster = window * perBlock + index;
            ulong count = cluster >= first && cluster < end ? 1 : (ulong)references.CountOf(cluster);
            if (count > most)
            {
                throw new DiskImageException(
                    DiskImageError.Corrupt,
                    file.Path,
                    string.Create(
                        CultureInfo.InvariantCulture,
                        $"The disk image '{file.Path}' is corrupt: its cluster {cluster} is used {count} times. Take a copy that is whole."));
            }

            if (count != 0)
            {
                block[index] = count;
            }
        }

        return block.Bytes;
    }

    private static ReferenceMap CountReferences(IImageFile file, Qcow2Header header)
    {
        int bits = header.ClusterBits;
        long clusters = (file.Length + header.ClusterSize - 1) >> bits;
        ReferenceMap references = ReferenceMap.Begin(file, header);
        ulong[] l1 = EntryTable.Read(file, header.L1Offset, header.L1Entries);
        bool isL1Changed = false;
        for (int index = 0; index < l1.Length; index++)
        {
            if (l1[index] == 0)
            {
                continue;
            }

            long offset = MappingEntry.Offset(l1[index]);
            if (!MappingEntry.IsWellFormedL1(l1[index], bits) || offset == 0 || offset >> bits >= clusters)
            {
                throw Corrupt(file.Path, offset);
            }

            references.Add(offset >> bits, isExclusive: true);
            CountTable(file, header, references, offset, clusters);
            isL1Changed |= (l1[index] & MappingEntry.Copied) == 0;
            l1[index] |= MappingEntry.Copied;
        }

        if (isL1Changed)
        {
            EntryTable.Write(file, header.L1Offset, l1);
        }

        return references;
    }

    private static void CountTable(IImageFile file, Qcow2Header header, ReferenceMap references, long tableOffset, long clusters)
    {
        int bits = header.ClusterBits;
        ulong[] entries = EntryTable.Read(file, tableOffset, header.ClusterSize / sizeof(ulong));
        bool isChanged = false;
        for (int index = 0; index < entries.Length; index++)
        {
            ulong entry = entries[index];
            if (entry == 0)
            {
                continue;
            }

            if (!MappingEntry.IsWellFormedL2(entry, bits))
            {
                throw Corrupt(file.Path, tableOffset);
            }

            if (MappingEntry.KindOf(entry) == ClusterKind.Compressed)
            {
                (long offset, int length) = MappingEntry.CompressedRange(entry, bits);
                for (long cluster = offset >> bits; cluster <= (offset + length - 1) >> bits; cluster++)
                {
                    if (cluster >= clusters)
                    {
                        throw Corrupt(file.Path, tableOffset);
                    }

                    references.Add(cluster, isExclusive: false);
                }
            }
            else if (MappingEntry.Offset(entry) is > 0 and var offset)
            {
                if (offset >> bits >= clusters)
                {
                    throw Corrupt(file.Path, tableOffset);
                }

                references.Add(offset >> bits, isExclusive: true);
                isChanged |= (entry & MappingEntry.Copied) == 0;
                entries[index] |= MappingEntry.Copied;
            }
        }

        if (isChanged)
        {
            EntryTable.Write(file, tableOffset, entries);
        }
    }

    private static DiskImageException Corrupt(string path, long tableOffset) => new(
        DiskImageError.Corrupt,
        path,
        string.Create(
            CultureInfo.InvariantCulture,
            $"The disk image '{path}' is corrupt: the table at byte {tableOffset} refers to where there is nothing. Try qemu-img check -r all, or take a copy that is whole."));
}

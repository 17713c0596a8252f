using System.Globalization;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>
/// Allocates the clusters of a file by their reference counts. Those in the file are out of date while the image is marked dirty: they are
/// stored when the image is closed, or when there is no room for them in memory, in any order.
/// </summary>
/// <remarks>For the holder of the allocation lock. A method that throws has changed nothing that matters.</remarks>
internal sealed class RefcountBlocks
{
    internal const int DefaultOrder = 4;
    internal const int MaxOrder = 6;

    private const int MinCachedBlocks = 4;

    private readonly IImageFile _file;
    private readonly int _clusterBits;
    private readonly int _order;
    private readonly int _maxCached;
    private readonly MetadataClusters _metadata;
    private readonly Dictionary<long, RefcountBlock> _blocks = [];
    private readonly Queue<long> _free = new();
    private ulong[] _table;
    private long _tableOffset;
    private bool _isTableChanged;
    private long _scan;
    private long _end;
    private long _uses;

    /// <summary>Reads the refcount table.</summary>
    /// <exception cref="DiskImageException">What it refers to is not in the file, or holds something else as well.</exception>
    internal RefcountBlocks(IImageFile file, Qcow2Header header, MetadataClusters metadata, int cacheBytes)
    {
        _file = file;
        _clusterBits = header.ClusterBits;
        _order = header.RefcountOrder;
        _maxCached = Math.Max(MinCachedBlocks, cacheBytes >> _clusterBits);
        _tableOffset = header.RefcountTableOffset;
        _end = (file.Length + ClusterSize - 1) >> _clusterBits;
        _metadata = metadata;
        metadata.Claim(_tableOffset, (long)header.RefcountTableClusters << _clusterBits);
        _table = EntryTable.Read(file, _tableOffset, (int)(((long)header.RefcountTableClusters << _clusterBits) / sizeof(ulong)));
        foreach (ulong block in _table)
        {
            if (block != 0)
            {
                metadata.Claim((long)block, ClusterSize);
            }
        }
    }

    /// <summary>The first cluster that nobody has ever used, and neither has any after it.</summary>
    internal long End => _end;

    private int ClusterSize => 1 << _clusterBits;

    private int ClustersPerBlock => (int)((8L << _clusterBits) >> _order);

    /// <summary>Allocates neighbouring clusters, each referred to once.</summary>
    /// <param name="max">How many would be used.</param>
    /// <param name="growTable">Makes the header point to a table of another size: offset and clusters. Durable when it returns.</param>
    /// <returns>The first one, and how many, at least 1.</returns>
    internal (long First, int Count) Allocate(int max, Action<long, int> growTable)
    {
        while (_free.TryPeek(out long candidate))
        {
            RefcountBlock block = Load(candidate / ClustersPerBlock);
            int index = (int)(candidate % ClustersPerBlock);
            _ = _free.Dequeue();
            if (block[index] == 0)
            {
                int count = 1;
                while (count < max && _free.TryPeek(out long next) && next == candidate + count
                    && index + count < ClustersPerBlock && block[index + count] == 0)
                {
                    _ = _free.Dequeue();
                    count++;
                }

                return Take(block, candidate, count);
            }
        }

        while (true)
        {
            long window = _scan / ClustersPerBlock;
            if (window >= _table.Length)
            {
                GrowTable(window, growTable);
                continue;
            }

            if (_table[window] == 0)
            {
                // The block counts itself.
                MakeRoom();
                AddBlock(window, _scan);
                _scan++;
                continue;
            }

            RefcountBlock block = Load(window);
            int index = (int)(_scan % ClustersPerBlock);
            while (index < ClustersPerBlock && block[index] != 0)
            {
                index++;
            }

            _scan = window * ClustersPerBlock + index;
            if (index == ClustersPerBlock)
            {
                continue;
            }

            int count = 1;
            while (count < max && index + count < ClustersPerBlock && block[index + count] == 0)
            {
                count++;
            }

            (long, int) taken = Take(block, _scan, count);
            _scan += count;
            return taken;
        }
    }

    /// <summary>Allocates exactly as many neighbouring clusters as are asked for, behind everything else.</summary>
    internal long AllocateRun(int count, Action<long, int> growTable)
    {
        while (true)
        {
            long first = Math.Max(_end, _scan);
            long last = (first + count - 1) / ClustersPerBlock;
            if (last >= _table.Length)
            {
                GrowTable(last, growTable);
                continue;
            }

            long missing = first / ClustersPerBlock;
            while (missing <= last && _table[missing] != 0)
            {
                _ = Load(missing, isKept: true);
                missing++;
            }

            if (missing <= last)
            {
                // The block comes first, and the run after it.
                AddBlock(missing, first);
                if (first / ClustersPerBlock != missing)
                {
                    Load(first / ClustersPerBlock, isKept: true)[(int)(first % ClustersPerBlock)] = 1;
                }

                continue;
            }

            for (long cluster = first; cluster < first + count; cluster++)
            {
                _blocks[cluster / ClustersPerBlock][(int)(cluster % ClustersPerBlock)] = 1;
            }

            _end = first + count;
            return first;
        }
    }

    /// <summary>Takes one reference away from each of some clusters. What nobody refers to any more is free at once.</summary>
    internal void Release(long first, long count)
    {
        // Clusters freed beyond this many are found again by scanning.
        const int MaxFree = 1 << 16;
        for (long window = first / ClustersPerBlock; window <= (first + count - 1) / ClustersPerBlock; window++)
        {
            if (window < _table.Length && _table[window] != 0)
            {
                _ = Load(window, isKept: true);
            }
        }

        // Nothing fails from here on.
        for (long cluster = first; cluster < first + count; cluster++)
        {
            int index = (int)(cluster % ClustersPerBlock);
            if (!_blocks.TryGetValue(cluster / ClustersPerBlock, out RefcountBlock? block) || block[index] == 0)
            {
                // In an image from elsewhere the counts can be too low. Then there is nothing to take away.
                continue;
            }

            block[index]--;
            if (block[index] == 0 && cluster < _scan)
            {
                if (_free.Count < MaxFree)
                {
                    _free.Enqueue(cluster);
                }
                else
                {
                    _scan = cluster;
                }
            }
        }
    }

    /// <summary>Writes all that is not in the file yet. Not durable before the next flush.</summary>
    internal void Store()
    {
        foreach ((long window, RefcountBlock block) in _blocks)
        {
            Store(window, block);
        }

        if (_isTableChanged)
        {
            EntryTable.Write(_file, _tableOffset, _table);
            _isTableChanged = false;
        }
    }

    private (long First, int Count) Take(RefcountBlock block, long first, int count)
    {
        _metadata.ThrowIfAny(first, count);
        int index = (int)(first % ClustersPerBlock);
        for (int i = 0; i < count; i++)
        {
            block[index + i] = 1;
        }

        _end = Math.Max(_end, first + count);
        return (first, count);
    }

    private void AddBlock(long window, long cluster)
    {
        _metadata.ThrowIfAny(cluster, 1);
        _metadata.Add(cluster, 1);
        RefcountBlock block = new(new byte[ClusterSize], _order) { LastUse = ++_uses, IsChanged = true };
        if (cluster / ClustersPerBlock == window)
        {
            block[(int)(cluster % ClustersPerBlock)] = 1;
        }

        _blocks.Add(window, block);
        _table[window] = (ulong)cluster << _clusterBits;
        _isTableChanged = true;
        _end = Math.Max(_end, cluster + 1);
    }

    /// <summary>Moves the table behind everything else, with room for half as many clusters again as there are.</summary>
    private void GrowTable(long window, Action<long, int> growTable)
    {
        long entries = window + window / 2 + 1;
        int tableClusters = (int)Math.Min(int.MaxValue, ((entries * sizeof(ulong)) + ClusterSize - 1) >> _clusterBits);
        if ((long)tableClusters << _clusterBits > Math.Max(Qcow2Header.MaxRefcountTableBytes, ClusterSize))
        {
            throw new BlockDeviceException(
                BlockDeviceError.NoSpace,
                _file.Path,
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"The disk image '{_file.Path}' cannot become larger with clusters of {ClusterSize} bytes. Convert it to larger ones."));
        }

        ulong[] table = new ulong[((long)tableClusters << _clusterBits) / sizeof(ulong)];
        _table.CopyTo(table, 0);
        long first = Math.Max(_end, _scan);
        long end = first + tableClusters;
        List<(long Window, long Cluster)> blocks = [];
        for (long covered = first / ClustersPerBlock; covered <= (end - 1) / ClustersPerBlock; covered++)
        {
            if (covered < table.Length && table[covered] == 0)
            {
                table[covered] = (ulong)end << _clusterBits;
                blocks.Add((covered, end++));
            }
        }

        if ((end - 1) / ClustersPerBlock >= table.Length)
        {
            // Larger tables take more of what they describe: ask for the next size.
            GrowTable((end - 1) / ClustersPerBlock, growTable);
            return;
        }

        // All that will be changed is in memory before the header says so: nothing can fail afterwards.
        for (long covered = first / ClustersPerBlock; covered <= (end - 1) / ClustersPerBlock; covered++)
        {
            if (!blocks.Exists(block => block.Window == covered))
            {
                _ = Load(covered, isKept: true);
            }
        }

        EntryTable.Write(_file, first << _clusterBits, table);
        growTable(first << _clusterBits, tableClusters);

        long oldFirst = _tableOffset >> _clusterBits;
        long oldCount = (_table.Length * (long)sizeof(ulong)) >> _clusterBits;
        _table = table;
        _tableOffset = first << _clusterBits;
        foreach ((long added, long cluster) in blocks)
        {
            AddBlock(added, cluster);
        }

        for (long cluster = first; cluster < end; cluster++)
        {
            _blocks[cluster / ClustersPerBlock][(int)(cluster % ClustersPerBlock)] = 1;
        }

        _end = end;
        _metadata.Add(first, tableClusters);
        _metadata.Remove(oldFirst, oldCount);
        Release(oldFirst, oldCount);
    }

    private RefcountBlock Load(long window, bool isKept = false)
    {
        if (!_blocks.TryGetValue(window, out RefcountBlock? block))
        {
            if (!isKept)
            {
                MakeRoom();
            }

            byte[] bytes = new byte[ClusterSize];
            _ = _file.Read((long)_table[window], bytes);
            block = new RefcountBlock(bytes, _order);
            _blocks.Add(window, block);
        }

        block.LastUse = ++_uses;
        return block;
    }

    private void MakeRoom()
    {
        while (_blocks.Count >= _maxCached)
        {
            (long window, RefcountBlock oldest) = _blocks.MinBy(block => block.Value.LastUse);
            Store(window, oldest);
            _ = _blocks.Remove(window);
        }
    }

    private void Store(long window, RefcountBlock block)
    {
        if (block.IsChanged)
        {
            _file.Write((long)_table[window], block.Bytes);
            block.IsChanged = false;
        }
    }
}

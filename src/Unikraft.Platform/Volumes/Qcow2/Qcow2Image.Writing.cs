using System.Buffers;
using System.Globalization;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <content>Writing, and the clusters that it takes and gives back.</content>
internal sealed partial class Qcow2Image
{
    /// <summary>Writes a range that is all on the disk.</summary>
    internal void Write(long offset, ReadOnlySpan<byte> data)
    {
        ThrowIfNotWritable();
        int epoch = _epochs.Enter();
        try
        {
            while (!data.IsEmpty)
            {
                ClusterRun run = Map(offset, data.Length);
                int written;
                if (run.Kind == ClusterKind.Data)
                {
                    _file.Write(run.FileOffset, data[..run.Length]);
                    written = run.Length;
                }
                else
                {
                    lock (_allocation)
                    {
                        written = AllocateAndWrite(offset, data);
                    }
                }

                offset += written;
                data = data[written..];
            }
        }
        finally
        {
            _epochs.Exit(epoch);
        }
    }

    /// <summary>Gives up what a range takes in the file: whole clusters only.</summary>
    internal void Discard(long offset, long length)
    {
        ThrowIfNotWritable();
        long first = (offset + ClusterSize - 1) >> _clusterBits;
        ZeroClusters(first, EndCluster(offset + length) - first, isDiscard: true);
    }

    /// <summary>Makes a range zeroes.</summary>
    internal void WriteZeroes(long offset, long length)
    {
        ThrowIfNotWritable();
        long first = (offset + ClusterSize - 1) >> _clusterBits;
        long end = EndCluster(offset + length);
        if (first >= end)
        {
            // Not one whole cluster; at most parts of two.
            long middle = Math.Min(first << _clusterBits, offset + length);
            ZeroPart(offset, middle - offset);
            ZeroPart(middle, offset + length - middle);
            return;
        }

        ZeroPart(offset, (first << _clusterBits) - offset);
        ZeroClusters(first, end - first, isDiscard: false);
        ZeroPart(end << _clusterBits, offset + length - (end << _clusterBits));
    }

    /// <summary>Makes the disk larger. What is added is zeroes.</summary>
    /// <param name="size">The new size in bytes, a multiple of 512.</param>
    /// <exception cref="DiskImageException">The size is smaller than it was, or out of range.</exception>
    internal void Resize(long size)
    {
        ThrowIfNotWritable();
        lock (_allocation)
        {
            if (size < _size || size % Qcow2Header.SectorSize != 0 || Qcow2Header.L1EntriesFor(size, _clusterBits) > Qcow2Header.MaxL1Entries)
            {
                throw new DiskImageException(
                    DiskImageError.InvalidSize,
                    Path,
                    string.Create(
                        CultureInfo.InvariantCulture,
                        $"The disk image '{Path}' of {_size} bytes cannot become one of {size}: it can only grow, by multiples of 512, to {MaxSize(_clusterBits)}."));
            }

            MarkDirty();
            int entries = (int)Qcow2Header.L1EntriesFor(size, _clusterBits);
            if (entries > _l1.Length)
            {
                GrowL1(entries);
            }

            // What is in the last cluster beyond the old end, and what the backing file has there, was not part of this disk.
            long first = (_size + ClusterSize - 1) >> _clusterBits;
            long end = (Math.Min(size, _backing?.Size ?? 0) + ClusterSize - 1) >> _clusterBits;
            ZeroPart(_size, Math.Min(first << _clusterBits, size) - _size);
            ZeroClusters(first, end - first, isDiscard: false);

            StoreMapping();
            Qcow2Header header = _header.Clone();
            header.Size = size;
            WriteHeader(header);
            Volatile.Write(ref _size, size);
        }
    }

    /// <summary>Writes as much of the data as goes into one run of new clusters, or of old ones that somebody else has allocated meanwhile.</summary>
    private int AllocateAndWrite(long offset, ReadOnlySpan<byte> data)
    {
        ClusterRun run = Map(offset, data.Length);
        if (run.Kind == ClusterKind.Data)
        {
            _file.Write(run.FileOffset, data[..run.Length]);
            return run.Length;
        }

        PrepareChange();
        long cluster = offset >> _clusterBits;
        L2Slice slice = EnsureSlice(cluster);
        int index = (int)(cluster & (EntriesPerSlice - 1));
        int inCluster = (int)(offset & (ClusterSize - 1));
        int wanted = (int)((inCluster + (long)data.Length + ClusterSize - 1) >> _clusterBits);
        int usable = 1;
        while (usable < wanted && index + usable < EntriesPerSlice && Check(slice[index + usable], cluster + usable) != ClusterKind.Data)
        {
            usable++;
        }

        long unusedFrom = _refcounts!.End;
        (long first, int count) = _refcounts.Allocate(usable, GrowRefcountTable);
        Volatile.Write(ref _clusters, Math.Max(_clusters, _refcounts.End));
        int length = (int)Math.Min(data.Length, ((long)count << _clusterBits) - inCluster);
        try
        {
            WriteNewClusters(slice, index, offset, first, data[..length], isBlank: first >= unusedFrom);
        }
        catch
        {
            _refcounts.Release(first, count);
            throw;
        }

        _l2.MarkChanged(slice);
        Volatile.Write(ref _isMappingChanged, true);
        for (int i = 0; i < count; i++)
        {
            Unlink(slice[index + i]);
            slice[index + i] = ((ulong)(first + i) << _clusterBits) | MappingEntry.Copied;
        }

        return length;
    }

    /// <summary>Fills new clusters: with the data, and around it with what was there before.</summary>
    private void WriteNewClusters(L2Slice slice, int index, long offset, long first, ReadOnlySpan<byte> data, bool isBlank)
    {
        long target = (first << _clusterBits) + (offset & (ClusterSize - 1));
        int inCluster = (int)(offset & (ClusterSize - 1));
        if (inCluster != 0 || data.Length < ClusterSize)
        {
            int part = Math.Min(data.Length, ClusterSize - inCluster);
            WritePart(slice[index], offset, target, data[..part], isBlank);
            data = data[part..];
            offset += part;
            target += part;
            index++;
        }

        int whole = data.Length & -ClusterSize;
        if (whole > 0)
        {
            _file.Write(target, data[..whole]);
        }

        if (whole < data.Length)
        {
            WritePart(slice[index + (whole >> _clusterBits)], offset + whole, target + whole, data[whole..], isBlank);
        }
    }

    private void WritePart(ulong oldEntry, long offset, long target, ReadOnlySpan<byte> data, bool isBlank)
    {
        ClusterKind kind = MappingEntry.KindOf(oldEntry);
        int inCluster = (int)(offset & (ClusterSize - 1));
        long start = offset - inCluster;
        bool isZero = kind == ClusterKind.Zero || (kind == ClusterKind.Unallocated && start >= (_backing?.Size ?? 0));
        if (isBlank && isZero)
        {
            // What the file has never held reads as zeroes.
            _file.Write(target, data);
            return;
        }

        byte[] cluster = ArrayPool<byte>.Shared.Rent(ClusterSize);
        try
        {
            Span<byte> content = cluster.AsSpan(0, ClusterSize);
            ReadRun(new ClusterRun(kind, ClusterSize, 0, oldEntry), start, content);
            data.CopyTo(content[inCluster..]);
            _file.Write(target - inCluster, content);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(cluster);
        }
    }

    private void ZeroPart(long offset, long length)
    {
        while (length > 0)
        {
            ClusterRun run = Map(offset, (int)Math.Min(length, Zeroes.Length));
            if (run.Kind is ClusterKind.Data or ClusterKind.Compressed || (run.Kind == ClusterKind.Unallocated && offset < (_backing?.Size ?? 0)))
            {
                Write(offset, Zeroes.AsSpan(0, run.Length));
            }

            offset += run.Length;
            length -= run.Length;
        }
    }

    private void ZeroClusters(long first, long count, bool isDiscard)
    {
        long end = first + count;
        while (first < end)
        {
            // Others get a turn after every slice.
            lock (_allocation)
            {
                first = ZeroClustersOfSlice(first, end, isDiscard);
            }
        }
    }

    private long ZeroClustersOfSlice(long first, long end, bool isDiscard)
    {
        bool isBacked = first << _clusterBits < (_backing?.Size ?? 0);
        if (_l1[first >> _l2Bits] == 0 && (isDiscard || !isBacked))
        {
            return Math.Min(end, ((first >> _l2Bits) + 1) << _l2Bits);
        }

        PrepareChange();
        L2Slice slice = EnsureSlice(first);
        ulong zero = isBacked ? MappingEntry.Zero : 0;
        for (; first < end; first++)
        {
            int index = (int)(first & (EntriesPerSlice - 1));
            ulong entry = slice[index];
            if (entry != zero && !(isDiscard && Check(entry, first) == ClusterKind.Unallocated))
            {
                _ = Check(entry, first);
                _l2.MarkChanged(slice);
                Volatile.Write(ref _isMappingChanged, true);
                slice[index] = zero;
                Unlink(entry);
            }

            if (index == EntriesPerSlice - 1)
            {
                return first + 1;
            }
        }

        return first;
    }

    /// <summary>Before the mapping changes: marks the file, and stores what is too much to be kept in memory.</summary>
    private void PrepareChange()
    {
        ThrowIfFlushWasLost();
        MarkDirty();
        if (_epochs.HasDrained)
        {
            ReleaseDrained();
        }

        if (_l2.HasTooManyChanges || (_unlinked.Count >= MaxUnlinked && _draining.Count == 0 && _epochs.HasDrained))
        {
            StoreMapping();
        }
    }

    /// <summary>Finds the slice that maps a cluster, in a new L2 table if there is none yet.</summary>
    private L2Slice EnsureSlice(long cluster)
    {
        int l1Index = (int)(cluster >> _l2Bits);
        if (_l1[l1Index] == 0)
        {
            (long table, _) = _refcounts!.Allocate(1, GrowRefcountTable);
            Volatile.Write(ref _clusters, Math.Max(_clusters, _refcounts.End));
            try
            {
                byte[] empty = ArrayPool<byte>.Shared.Rent(ClusterSize);
                empty.AsSpan(0, ClusterSize).Clear();
                _file.Write(table << _clusterBits, empty.AsSpan(0, ClusterSize));
                ArrayPool<byte>.Shared.Return(empty);
            }
            catch
            {
                _refcounts.Release(table, 1);
                throw;
            }

            _metadata!.Add(table, 1);
            _changedL1Sectors.Add(l1Index / L1EntriesPerSector);
            Volatile.Write(ref _isMappingChanged, true);
            Volatile.Write(ref _l1[l1Index], ((ulong)table << _clusterBits) | MappingEntry.Copied);
        }

        return FindSlice(cluster, _l1[l1Index]);
    }

    /// <summary>What an entry referred to is not needed any more, once the file does not say so any more and nobody is reading it.</summary>
    private void Unlink(ulong entry)
    {
        long first;
        long count = 1;
        if ((entry & MappingEntry.Compressed) != 0)
        {
            (long offset, int length) = MappingEntry.CompressedRange(entry, _clusterBits);
            first = offset >> _clusterBits;
            count = ((offset + length - 1) >> _clusterBits) - first + 1;
        }
        else if (MappingEntry.Offset(entry) == 0)
        {
            return;
        }
        else
        {
            first = MappingEntry.Offset(entry) >> _clusterBits;
        }

        _unlinked.Enqueue((first, count));
    }

    private void ReleaseDrained()
    {
        while (_draining.TryPeek(out (long First, long Count) run))
        {
            _refcounts!.Release(run.First, run.Count);
            _ = _draining.Dequeue();
        }
    }

    private void GrowRefcountTable(long offset, int clusters)
    {
        FlushFile();
        Qcow2Header header = _header.Clone();
        header.RefcountTableOffset = offset;
        header.RefcountTableClusters = clusters;
        WriteHeader(header);
    }

    private void GrowL1(int entries)
    {
        // The new table holds what is durable only.
        StoreMapping();
        int clusters = (int)((entries * (long)sizeof(ulong) + ClusterSize - 1) >> _clusterBits);
        int oldClusters = (int)((_l1.Length * (long)sizeof(ulong) + ClusterSize - 1) >> _clusterBits);
        long oldFirst = _header.L1Offset >> _clusterBits;
        ulong[] l1 = new ulong[((long)clusters << _clusterBits) / sizeof(ulong)];
        _l1.CopyTo(l1, 0);
        if (clusters > oldClusters)
        {
            long first = _refcounts!.AllocateRun(clusters, GrowRefcountTable);
            Volatile.Write(ref _clusters, Math.Max(_clusters, _refcounts.End));
            try
            {
                Qcow2Header header = _header.Clone();
                header.L1Entries = entries;
                header.L1Offset = first << _clusterBits;
                EntryTable.Write(_file, header.L1Offset, l1);
                FlushFile();
                WriteHeader(header);
            }
            catch
            {
                _refcounts.Release(first, clusters);
                throw;
            }

            _metadata!.Add(first, clusters);
            _metadata.Remove(oldFirst, oldClusters);
            _refcounts.Release(oldFirst, oldClusters);
        }
        else
        {
            // Nobody promises that the rest of the table's last cluster is zeroes.
            EntryTable.Write(_file, _header.L1Offset, l1);
            FlushFile();
            Qcow2Header header = _header.Clone();
            header.L1Entries = entries;
            WriteHeader(header);
        }

        Volatile.Write(ref _l1, l1[..entries]);
    }

    private void ThrowIfNotWritable()
    {
        if (IsFrozen)
        {
            throw new BlockDeviceException(BlockDeviceError.ReadOnly, Path, $"The disk image '{Path}' is read-only.");
        }

        ThrowIfFlushWasLost();
    }
}

using System.Buffers;
using System.Buffers.Binary;
using System.Globalization;
using System.IO.Compression;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>One qcow2 file. See docs/adr/0007-qcow2-write-order.md for what is written when.</summary>
/// <remarks>
/// Safe for any number of concurrent requests. Reads, and writes to clusters that are in the file already, take no lock. Whatever changes
/// the mapping holds the allocation lock, its I/O included: allocating writes, zeroing and flushing of a changed mapping.
/// </remarks>
internal sealed class Qcow2Image : BlockLayer
{
    internal const string FormatName = "qcow2";
    internal const int DefaultCacheBytes = 4 << 20;

    private const int L1EntriesPerSector = Qcow2Header.SectorSize / sizeof(ulong);

    /// <summary>How many runs of clusters may wait for a flush before they can be used again.</summary>
    private const int MaxUnlinked = 1 << 14;

    private static readonly byte[] Zeroes = new byte[64 << 10];

    private readonly IImageFile _file;
    private BlockLayer? _backing;
    private readonly L2Cache _l2;
    private readonly MetadataClusters? _metadata;
    private readonly RefcountBlocks? _refcounts;
    private readonly RequestEpochs _epochs = new();
    private readonly Lock _allocation = new();
    private readonly SortedSet<int> _changedL1Sectors = [];
    private readonly int _clusterBits;
    private readonly int _l2Bits;
    private readonly int _sliceBits;
    private Queue<(long First, long Count)> _unlinked = new();
    private Queue<(long First, long Count)> _draining = new();
    private Qcow2Header _header;
    private ulong[] _l1;
    private long _size;
    private long _clusters;
    private DecompressedCluster? _decompressed;
    private AncestorMap? _ancestors;
    private BlockDeviceException? _lostFlush;
    private bool _isMappingChanged;
    private bool _isFrozen;
    private bool _isSealed;
    private long _flushesBegun;
    private long _flushesDone;

    private Qcow2Image(IImageFile file, Qcow2Header header, BlockLayer? backing, int cacheBytes)
    {
        _file = file;
        _header = header;
        _backing = backing;
        _clusterBits = header.ClusterBits;
        _l2Bits = _clusterBits - 3;
        _sliceBits = Math.Min(_l2Bits, L2Cache.MaxSliceBits);
        _size = header.Size;
        _clusters = (file.Length + ClusterSize - 1) >> _clusterBits;
        _l1 = EntryTable.Read(file, header.L1Offset, header.L1Entries);
        _isFrozen = _isSealed = file.IsReadOnly;
        if (!file.IsReadOnly)
        {
            _metadata = new MetadataClusters(file, _clusterBits);
            if (_l1.Length > 0)
            {
                _metadata.Claim(header.L1Offset, _l1.Length * (long)sizeof(ulong));
            }

            foreach (ulong entry in _l1)
            {
                if (entry != 0)
                {
                    _metadata.Claim((long)(entry & ~MappingEntry.Copied), ClusterSize);
                }
            }

            _refcounts = new RefcountBlocks(file, header, _metadata, cacheBytes / 4);
        }

        _l2 = new L2Cache(file, _clusterBits, cacheBytes, _metadata);
    }

    internal override string Path => _file.Path;

    internal override IImageFile File => _file;

    internal override long Size => Volatile.Read(ref _size);

    internal override string Format => FormatName;

    internal int ClusterSize => 1 << _clusterBits;

    internal BlockLayer? Backing => _backing;

    /// <summary>How much of the mapping of its clusters is in memory, in bytes.</summary>
    internal long CachedBytes => _l2.Bytes;

    internal override bool IsFrozen => Volatile.Read(ref _isFrozen);

    private int EntriesPerSlice => 1 << _sliceBits;

    /// <summary>Opens an image over the layer beneath it. A file that may be written to is repaired if it was not closed.</summary>
    /// <param name="file">The file. Owned by the image, unless this throws.</param>
    /// <param name="header">Its header.</param>
    /// <param name="backing">What its backing file is, if it has one. Released by the image, unless this throws.</param>
    /// <param name="cacheBytes">How much of its mapping may be in memory. Its refcounts may take a quarter of that.</param>
    /// <exception cref="DiskImageException">It can only be read, or it is corrupt.</exception>
    /// <exception cref="BlockDeviceException">The host cannot read or write the file.</exception>
    internal static Qcow2Image Open(IImageFile file, Qcow2Header header, BlockLayer? backing, int cacheBytes = DefaultCacheBytes)
    {
        if (!file.IsReadOnly)
        {
            header.ThrowIfNotWritable(file.Path);
            if (header.IsDirty)
            {
                header = Qcow2Repair.Rebuild(file, header);
            }
        }

        return new Qcow2Image(file, header, backing, cacheBytes);
    }

    /// <summary>Lays out an empty image in an empty file. Durable when this returns.</summary>
    /// <param name="file">The file.</param>
    /// <param name="size">The size of the disk in bytes, a multiple of 512.</param>
    /// <param name="clusterBits">The size of the clusters, 12 (4 KiB) to 21 (2 MiB).</param>
    /// <param name="backing">The name and format of the backing file, if it has one.</param>
    /// <param name="isDirty">Whether it is marked as open already, which saves its first write two flushes.</param>
    /// <exception cref="DiskImageException">The size is out of range, or the name of the backing file is too long.</exception>
    internal static void Create(
        IImageFile file,
        long size,
        int clusterBits = Qcow2Header.DefaultClusterBits,
        (string Name, string Format)? backing = null,
        bool isDirty = false)
    {
        const int SmallestClusterBits = 12;
        ArgumentOutOfRangeException.ThrowIfLessThan(clusterBits, SmallestClusterBits);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(clusterBits, Qcow2Header.MaxClusterBits);
        long l1Entries = size <= 0 ? 0 : Qcow2Header.L1EntriesFor(size, clusterBits);
        if (size <= 0 || size % Qcow2Header.SectorSize != 0 || l1Entries > Qcow2Header.MaxL1Entries)
        {
            throw new DiskImageException(
                DiskImageError.InvalidSize,
                file.Path,
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"A disk image cannot have {size} bytes: a multiple of 512 is needed, up to {MaxSize(clusterBits)} with clusters of {1 << clusterBits}."));
        }

        if (backing is { } named && !Qcow2Header.Fits(named.Name, clusterBits))
        {
            throw new DiskImageException(
                DiskImageError.BackingFileRefused,
                file.Path,
                $"The path of the backing file '{named.Name}' is too long for a disk image: 1023 bytes are possible. Use a shorter one.");
        }

        // Header, refcount table, refcount blocks, L1 table.
        int clusterSize = 1 << clusterBits;
        int perBlock = clusterSize * 8 >> RefcountBlocks.DefaultOrder;
        int l1Clusters = (int)((l1Entries * sizeof(ulong) + clusterSize - 1) >> clusterBits);
        int blocks = 1;
        while (2 + blocks + l1Clusters > blocks * perBlock)
        {
            blocks++;
        }

        int total = 2 + blocks + l1Clusters;
        byte[] counts = new byte[(long)blocks << clusterBits];
        byte[] table = new byte[clusterSize];
        for (int cluster = 0; cluster < total; cluster++)
        {
            BinaryPrimitives.WriteUInt16BigEndian(counts.AsSpan(cluster * sizeof(ushort)), 1);
        }

        for (int block = 0; block < blocks; block++)
        {
            BinaryPrimitives.WriteInt64BigEndian(table.AsSpan(block * sizeof(ulong)), (2L + block) << clusterBits);
        }

        file.SetLength((long)total << clusterBits);
        file.Write(clusterSize, table);
        file.Write(2L << clusterBits, counts);
        Guid? identity = Guid.TryParseExact(System.IO.Path.GetFileNameWithoutExtension(file.Path), "D", out Guid uuid) ? uuid : null;
        file.Write(0, Qcow2Header.Format(clusterBits, size, (int)l1Entries, (2L + blocks) << clusterBits, clusterSize, isDirty, backing, identity));
        file.Flush();
    }

    /// <summary>Creates an empty image and opens it.</summary>
    /// <param name="file">An empty file. Owned by the image, unless this throws.</param>
    /// <param name="size">The size of the disk in bytes, a multiple of 512.</param>
    /// <param name="clusterBits">The size of the clusters, 12 (4 KiB) to 21 (2 MiB).</param>
    /// <param name="backing">What is beneath it. Released by the image, unless this throws.</param>
    /// <param name="cacheBytes">How much of its mapping may be in memory.</param>
    internal static Qcow2Image CreateNew(IImageFile file, long size, int clusterBits, BlockLayer? backing, int cacheBytes = DefaultCacheBytes)
    {
        // Relative, so that a directory of images can be moved.
        (string, string)? named = backing is null
            ? null
            : (System.IO.Path.GetRelativePath(System.IO.Path.GetDirectoryName(file.Path)!, backing.Path), backing.Format);

        // It is as good as in use: its counts are right, so that there is nothing to repair.
        Create(file, size, clusterBits, named, isDirty: true);
        return new Qcow2Image(file, Qcow2Header.Read(file), backing, cacheBytes);
    }

    internal override void Read(long offset, Span<byte> buffer)
    {
        // Nothing is used for anything else any more in an image that is frozen, and most layers of a chain are.
        if (IsFrozen)
        {
            ReadRuns(offset, buffer);
            return;
        }

        int epoch = _epochs.Enter();
        try
        {
            ReadRuns(offset, buffer);
        }
        finally
        {
            _epochs.Exit(epoch);
        }
    }

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

    /// <summary>Makes durable what was complete before the call, in the layers beneath as well.</summary>
    internal void Flush()
    {
        ThrowIfFlushWasLost();
        _backing?.Seal();

        // A flush that begins after this does for this one too.
        long enough = Volatile.Read(ref _flushesBegun) + 1;
        if (!Volatile.Read(ref _isMappingChanged))
        {
            FlushFile();
            return;
        }

        lock (_allocation)
        {
            if (_flushesDone >= enough)
            {
                return;
            }

            Volatile.Write(ref _flushesBegun, _flushesBegun + 1);
            StoreMapping();
            _flushesDone = _flushesBegun;
        }
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

    /// <summary>What the image itself has from an offset on, and for how many bytes.</summary>
    internal (ClusterKind Kind, int Length) Find(long offset, int length)
    {
        ClusterRun run = Map(offset, length);
        return (run.Kind, run.Length);
    }

    /// <summary>Puts another layer, of the same contents, in the place of the one beneath. Nobody reads or writes meanwhile.</summary>
    /// <param name="backing">The layer, which the image has from now on.</param>
    /// <returns>The one that was beneath, which is the caller's now.</returns>
    internal BlockLayer ReplaceBacking(BlockLayer backing)
    {
        lock (_allocation)
        {
            BlockLayer before = _backing!;
            Volatile.Write(ref _ancestors, null);
            Volatile.Write(ref _backing, backing);
            return before;
        }
    }

    /// <summary>Writes the name of the layer beneath down, durably. Until then the file names another one of the same contents.</summary>
    /// <exception cref="BlockDeviceException">The host cannot write.</exception>
    /// <exception cref="InvalidOperationException">The names are not of one length.</exception>
    internal void StoreBackingName()
    {
        lock (_allocation)
        {
            ThrowIfFlushWasLost();
            string name = System.IO.Path.GetRelativePath(System.IO.Path.GetDirectoryName(Path)!, _backing!.Path);
            WriteHeader(_header.TryWithBackingFile(name) ?? throw new InvalidOperationException($"'{name}' does not fit into the header of '{Path}'."));
        }
    }

    /// <summary>Whether a cluster of the disk is in this image, as data or as zeroes.</summary>
    internal bool Has(long cluster) => Map(cluster << _clusterBits, 1).Kind != ClusterKind.Unallocated;

    /// <summary>Lets nobody write to it any more. Cheap: what was written is stored by <see cref="Seal"/>.</summary>
    internal void Freeze() => Volatile.Write(ref _isFrozen, true);

    internal override void Seal()
    {
        if (Volatile.Read(ref _isSealed))
        {
            return;
        }

        if (!IsFrozen)
        {
            Flush();
            return;
        }

        ThrowIfFlushWasLost();
        _backing?.Seal();
        lock (_allocation)
        {
            if (!_isSealed)
            {
                StoreAll();
                Volatile.Write(ref _isSealed, true);
            }
        }
    }

    protected override void Close()
    {
        bool isComplete = _isSealed;
        try
        {
            // After a lost flush nobody knows what is in the file: it stays marked for repair.
            if (!isComplete && _lostFlush is null)
            {
                _backing?.Seal();
                lock (_allocation)
                {
                    StoreAll();
                }

                isComplete = true;
            }
        }
        finally
        {
            if (!isComplete)
            {
                Registry?.NoteIncomplete(Path);
            }

            _file.Dispose();
            _backing?.Release();
        }
    }

    private static long MaxSize(int clusterBits) => (long)Math.Min((decimal)Qcow2Header.MaxL1Entries * (1L << (2 * clusterBits - 3)), long.MaxValue - 511);

    /// <summary>The cluster after the last one that ends at or before an offset; the disk's last one may end early.</summary>
    private long EndCluster(long end) => end >= _size ? (end + ClusterSize - 1) >> _clusterBits : end >> _clusterBits;

    /// <summary>Finds where a range begins, and how far it stays there.</summary>
    private ClusterRun Map(long offset, int length)
    {
        long cluster = offset >> _clusterBits;
        int inCluster = (int)(offset & (ClusterSize - 1));
        ulong[] l1 = Volatile.Read(ref _l1);
        ulong l1Entry = Volatile.Read(ref l1[cluster >> _l2Bits]);
        if (l1Entry == 0)
        {
            long toEnd = ((((cluster >> _l2Bits) + 1) << _l2Bits) << _clusterBits) - offset;
            return new ClusterRun(ClusterKind.Unallocated, (int)Math.Min(length, toEnd));
        }

        L2Slice slice = FindSlice(cluster, l1Entry);
        int index = (int)(cluster & (EntriesPerSlice - 1));
        ulong entry = slice[index];
        ClusterKind kind = Check(entry, cluster);
        long fileOffset = MappingEntry.Offset(entry);
        long run = ClusterSize - inCluster;
        if (kind == ClusterKind.Compressed)
        {
            return new ClusterRun(kind, (int)Math.Min(run, length), 0, entry);
        }

        for (long next = fileOffset + ClusterSize; run < length && ++index < EntriesPerSlice; next += ClusterSize)
        {
            ulong nextEntry = slice[index];
            if (MappingEntry.KindOf(nextEntry) != kind || (kind == ClusterKind.Data && MappingEntry.Offset(nextEntry) != next))
            {
                break;
            }

            _ = Check(nextEntry, ++cluster);
            run += ClusterSize;
        }

        return new ClusterRun(kind, (int)Math.Min(run, length), fileOffset + inCluster);
    }

    private L2Slice FindSlice(long cluster, ulong l1Entry)
    {
        long index = cluster >> _sliceBits;
        if (_l2.Find(index) is { } found)
        {
            return found;
        }

        long tableOffset = MappingEntry.Offset(l1Entry);
        if (!MappingEntry.IsWellFormedL1(l1Entry, _clusterBits) || tableOffset >> _clusterBits >= Volatile.Read(ref _clusters))
        {
            throw Corrupt(cluster);
        }

        int inTable = (int)(cluster & ((1 << _l2Bits) - 1)) & -EntriesPerSlice;
        return _l2.Get(index, tableOffset + inTable * sizeof(ulong));
    }

    /// <summary>What an entry says, once it is known to make sense in this file.</summary>
    private ClusterKind Check(ulong entry, long cluster)
    {
        ClusterKind kind = MappingEntry.KindOf(entry);
        bool isSound = MappingEntry.IsWellFormedL2(entry, _clusterBits) && (kind == ClusterKind.Compressed
            ? IsInFile(MappingEntry.CompressedRange(entry, _clusterBits).Offset)
            : kind is ClusterKind.Unallocated || IsInFile(MappingEntry.Offset(entry)));
        return isSound ? kind : throw Corrupt(cluster);
    }

    private bool IsInFile(long offset) => offset >> _clusterBits < Volatile.Read(ref _clusters);

    private BlockDeviceException Corrupt(long cluster) => new(
        BlockDeviceError.Corrupt,
        Path,
        string.Create(
            CultureInfo.InvariantCulture,
            $"The disk image '{Path}' is corrupt: cluster {cluster} of the disk is mapped to where there is none. Try qemu-img check -r all."));

    private void ReadRuns(long offset, Span<byte> buffer)
    {
        while (!buffer.IsEmpty)
        {
            ClusterRun run = Map(offset, buffer.Length);
            ReadRun(run, offset, buffer[..run.Length]);
            offset += run.Length;
            buffer = buffer[run.Length..];
        }
    }

    private void ReadRun(ClusterRun run, long offset, Span<byte> buffer)
    {
        switch (run.Kind)
        {
            case ClusterKind.Data:
                buffer[_file.Read(run.FileOffset, buffer)..].Clear();
                break;
            case ClusterKind.Compressed:
                Decompress(run.Entry).AsSpan((int)(offset & (ClusterSize - 1)), buffer.Length).CopyTo(buffer);
                break;
            case ClusterKind.Unallocated when _backing is not null:
                ReadBeneath(offset, buffer);
                break;
            default:
                buffer.Clear();
                break;
        }
    }

    private void ReadBeneath(long offset, Span<byte> buffer)
    {
        AncestorMap? ancestors = Volatile.Read(ref _ancestors);
        if (ancestors is null)
        {
            if (!_backing!.IsFrozen)
            {
                // It is prepared for a cut, and cannot be read by anybody yet but a test.
                ReadOrZero(_backing, offset, buffer);
                return;
            }

            ancestors = new AncestorMap(_backing, _clusterBits);
            Volatile.Write(ref _ancestors, ancestors);
        }

        ancestors.Read(offset, buffer);
    }

    private byte[] Decompress(ulong entry)
    {
        // Small reads come in rows, and compressed clusters are never written again.
        if (Volatile.Read(ref _decompressed) is { } last && last.Entry == entry)
        {
            return last.Data;
        }

        (long offset, int length) = MappingEntry.CompressedRange(entry, _clusterBits);
        byte[] compressed = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            length = _file.Read(offset, compressed.AsSpan(0, length));
            byte[] data = new byte[ClusterSize];
            using MemoryStream source = new(compressed, 0, length, writable: false);
            using DeflateStream deflate = new(source, CompressionMode.Decompress);
            deflate.ReadExactly(data);
            Volatile.Write(ref _decompressed, new DecompressedCluster(entry, data));
            return data;
        }
        catch (Exception error) when (error is InvalidDataException or EndOfStreamException)
        {
            throw new BlockDeviceException(
                BlockDeviceError.Corrupt,
                Path,
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"The disk image '{Path}' is corrupt: the compressed data at byte {offset} is damaged. Take a copy that is whole."),
                error);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(compressed);
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

    private void MarkDirty()
    {
        if (!_header.IsDirty)
        {
            Qcow2Header header = _header.Clone();
            header.IsDirty = true;
            WriteHeader(header);
        }
    }

    /// <summary>Changes the header, durably.</summary>
    private void WriteHeader(Qcow2Header header)
    {
        _file.Write(0, header.ToSector());
        FlushFile();
        _header = header;
    }

    /// <summary>Makes the mapping durable, after all that it maps to.</summary>
    private void StoreMapping()
    {
        ThrowIfFlushWasLost();
        FlushFile();
        if (!_isMappingChanged)
        {
            return;
        }

        foreach (L2Slice slice in _l2.Changed)
        {
            _l2.Store(slice);
        }

        foreach (int changed in _changedL1Sectors)
        {
            int first = changed * L1EntriesPerSector;
            int count = Math.Min(L1EntriesPerSector, _l1.Length - first);
            EntryTable.Write(_file, _header.L1Offset + first * sizeof(ulong), _l1.AsSpan(first, count));
        }

        FlushFile();
        _l2.ForgetChanges();
        _changedL1Sectors.Clear();
        Volatile.Write(ref _isMappingChanged, false);
        if (_draining.Count == 0 && _unlinked.Count > 0 && _epochs.HasDrained)
        {
            (_draining, _unlinked) = (_unlinked, _draining);
            _epochs.Advance();
        }
    }

    /// <summary>Stores everything there is, so that the file is as consistent as if it had been closed.</summary>
    private void StoreAll()
    {
        StoreMapping();
        if (!_header.IsDirty)
        {
            return;
        }

        // Nothing will be allocated any more, so it does not matter who is still reading.
        ReleaseDrained();
        (_draining, _unlinked) = (_unlinked, _draining);
        ReleaseDrained();

        _refcounts!.Store();

        // A file that has lost its end is told from one that ends there.
        if (_file.Length is var length && length % ClusterSize != 0)
        {
            _file.SetLength((length + ClusterSize - 1) & -(long)ClusterSize);
        }

        FlushFile();
        Qcow2Header header = _header.Clone();
        header.IsDirty = false;
        WriteHeader(header);
    }

    private void FlushFile()
    {
        try
        {
            _file.Flush();
        }
        catch (BlockDeviceException error)
        {
            // The host may have thrown the data away, and would report success the next time.
            _lostFlush ??= error;
            throw;
        }
    }

    private void ThrowIfNotWritable()
    {
        if (IsFrozen)
        {
            throw new BlockDeviceException(BlockDeviceError.ReadOnly, Path, $"The disk image '{Path}' is read-only.");
        }

        ThrowIfFlushWasLost();
    }

    private void ThrowIfFlushWasLost()
    {
        if (Volatile.Read(ref _lostFlush) is { } lost)
        {
            throw new BlockDeviceException(
                BlockDeviceError.InputOutput,
                Path,
                $"The host failed to flush '{Path}' before, and data that was not durable by then may be lost. Close the image, check the disk and open it again.",
                lost);
        }
    }

    private sealed record DecompressedCluster(ulong Entry, byte[] Data);
}

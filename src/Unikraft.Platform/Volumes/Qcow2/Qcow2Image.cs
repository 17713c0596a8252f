using System.Buffers.Binary;
using System.Globalization;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>One qcow2 file. See docs/adr/0007-qcow2-write-order.md for what is written when.</summary>
/// <remarks>
/// Safe for any number of concurrent requests. Reads, and writes to clusters that are in the file already, take no lock. Whatever changes
/// the mapping holds the allocation lock, its I/O included: allocating writes, zeroing and flushing of a changed mapping.
/// </remarks>
internal sealed partial class Qcow2Image : BlockLayer
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
}

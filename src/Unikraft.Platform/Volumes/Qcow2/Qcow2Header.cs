using System.Buffers.Binary;
using System.Globalization;
using System.Numerics;
using System.Text;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>The header of a qcow2 file. Whatever made the file, a header that was parsed fits its file and this implementation.</summary>
/// <remarks>What changes while an image is open is in its first sector, so that one write of one sector changes it, or does not.</remarks>
internal sealed class Qcow2Header
{
    internal const int SectorSize = 512;
    internal const int MinClusterBits = 9;
    internal const int MaxClusterBits = 21;
    internal const int DefaultClusterBits = 16;

    /// <summary>32 MiB of L1 table and 8 MiB of refcount table: the format has no limits of its own, QEMU has these.</summary>
    internal const int MaxL1Entries = (32 << 20) / sizeof(ulong);
    internal const int MaxRefcountTableBytes = 8 << 20;

    private const uint Magic = 0x5146_49fb;
    private const int LengthOfV2 = 72;
    private const int LengthOfV3 = 104;
    private const int UsualLength = 4096;
    private const int MaxBackingName = 1023;

    private const ulong DirtyBit = 1;
    private const ulong CorruptBit = 2;
    private const ulong LazyRefcountsBit = 1;

    private const uint BackingFormatExtension = 0xe279_2aca;
    private const uint FeatureNamesExtension = 0x6803_f857;
    private const uint BitmapsExtension = 0x2385_2875;

    /// <summary>Under which UUID the image was made, so that one in the place of another is noticed. Others pass over extensions that they do not know.</summary>
    private const uint IdentityExtension = 0x554b_5631;
    private const int IdentityLength = 16;

    private static readonly string[] KnownFeatures =
        ["dirty bit", "corrupt bit", "external data file", "compression type", "extended L2 entries"];

    private readonly byte[] _sector;

    private Qcow2Header(byte[] sector) => _sector = sector;

    internal required int Version { get; init; }

    internal required int ClusterBits { get; init; }

    internal required int RefcountOrder { get; init; }

    internal required long Size { get; set; }

    internal required long L1Offset { get; set; }

    internal required int L1Entries { get; set; }

    internal required long RefcountTableOffset { get; set; }

    internal required int RefcountTableClusters { get; set; }

    internal required bool IsDirty { get; set; }

    internal required bool IsCorrupt { get; init; }

    internal required uint InternalSnapshots { get; init; }

    internal required bool HasBitmaps { get; init; }

    internal required string? BackingFile { get; init; }

    internal required string? BackingFormat { get; init; }

    /// <summary>The UUID that the file was named by when it was made; <see langword="null"/> when it does not say.</summary>
    internal required Guid? Identity { get; init; }

    internal int ClusterSize => 1 << ClusterBits;

    /// <summary>How many L1 entries a disk of a size takes.</summary>
    internal static long L1EntriesFor(long size, int clusterBits)
    {
        int bits = clusterBits + (clusterBits - 3);
        return (size >> bits) + ((size & ((1L << bits) - 1)) == 0 ? 0 : 1);
    }

    /// <summary>Lays out the first cluster of a new image.</summary>
    internal static byte[] Format(
        int clusterBits,
        long size,
        int l1Entries,
        long l1Offset,
        long refcountTableOffset,
        bool isDirty,
        (string Name, string Format)? backing,
        Guid? identity = null)
    {
        byte[] cluster = new byte[1 << clusterBits];
        Span<byte> span = cluster;
        BinaryPrimitives.WriteUInt32BigEndian(span, Magic);
        BinaryPrimitives.WriteUInt32BigEndian(span[4..], 3);
        BinaryPrimitives.WriteUInt32BigEndian(span[20..], (uint)clusterBits);
        BinaryPrimitives.WriteInt64BigEndian(span[24..], size);
        BinaryPrimitives.WriteInt32BigEndian(span[36..], l1Entries);
        BinaryPrimitives.WriteInt64BigEndian(span[40..], l1Offset);
        BinaryPrimitives.WriteInt64BigEndian(span[48..], refcountTableOffset);
        BinaryPrimitives.WriteInt32BigEndian(span[56..], 1);
        BinaryPrimitives.WriteUInt64BigEndian(span[72..], isDirty ? DirtyBit : 0);
        BinaryPrimitives.WriteUInt64BigEndian(span[80..], LazyRefcountsBit);
        BinaryPrimitives.WriteInt32BigEndian(span[96..], RefcountBlocks.DefaultOrder);
        BinaryPrimitives.WriteInt32BigEndian(span[100..], LengthOfV3);
        int position = LengthOfV3;
        if (backing is { } named)
        {
            byte[] format = Encoding.UTF8.GetBytes(named.Format);
            BinaryPrimitives.WriteUInt32BigEndian(span[position..], BackingFormatExtension);
            BinaryPrimitives.WriteInt32BigEndian(span[(position + 4)..], format.Length);
            format.CopyTo(span[(position + 8)..]);
            position += 8 + ((format.Length + 7) & ~7);
        }

        if (identity is { } uuid)
        {
            BinaryPrimitives.WriteUInt32BigEndian(span[position..], IdentityExtension);
            BinaryPrimitives.WriteInt32BigEndian(span[(position + 4)..], IdentityLength);
            uuid.TryWriteBytes(span[(position + 8)..], bigEndian: true, out _);
            position += 8 + IdentityLength;
        }

        // The end of the extensions is eight zero bytes.
        position += 8;
        if (backing is { } file)
        {
            byte[] name = Encoding.UTF8.GetBytes(file.Name);
            name.CopyTo(span[position..]);
            BinaryPrimitives.WriteInt64BigEndian(span[8..], position);
            BinaryPrimitives.WriteInt32BigEndian(span[16..], name.Length);
        }

        return cluster;
    }

    /// <summary>Whether the name of a backing file fits into the header.</summary>
    internal static bool Fits(string backingFile, int clusterBits) =>
        Encoding.UTF8.GetByteCount(backingFile) is > 0 and var length
        && length <= Math.Min(MaxBackingName, (1 << clusterBits) - LengthOfV3 - 32 - 8 - IdentityLength);

    /// <summary>Reads the header of a file.</summary>
    /// <exception cref="DiskImageException">It is no qcow2 file, uses what is not supported, or contradicts itself.</exception>
    internal static Qcow2Header Read(IImageFile file)
    {
        byte[] head = new byte[UsualLength];
        int length = file.Read(0, head);
        if (length < LengthOfV2 || BinaryPrimitives.ReadUInt32BigEndian(head) != Magic)
        {
            throw new DiskImageException(
                DiskImageError.WrongFormat,
                file.Path,
                $"'{file.Path}' is not a qcow2 image: it does not begin as one. Name its format, or convert it with qemu-img convert -O qcow2.");
        }

        uint version = BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(4));
        if (version is not (2 or 3))
        {
            throw Unsupported(file.Path, string.Create(CultureInfo.InvariantCulture, $"version {version}"));
        }

        uint clusterBits = BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(20));
        if (clusterBits is < MinClusterBits or > MaxClusterBits)
        {
            throw Corrupt(file.Path, string.Create(CultureInfo.InvariantCulture, $"clusters of 2^{clusterBits} bytes"));
        }

        int clusterSize = 1 << (int)clusterBits;
        Span<byte> cluster = head.AsSpan(0, Math.Min(length, clusterSize));

        // The rest of the header may be anywhere in the first cluster, which is up to 2 MiB of which it seldom has so much.
        if (length == UsualLength && clusterSize > UsualLength && !HasWholeHeader(cluster))
        {
            byte[] all = new byte[clusterSize];
            cluster = all.AsSpan(0, file.Read(0, all));
        }

        return Parse(file, cluster, (int)version, (int)clusterBits);
    }

    /// <summary>The sector that makes the properties which can change what they are now.</summary>
    internal byte[] ToSector()
    {
        byte[] sector = [.. _sector];
        BinaryPrimitives.WriteInt64BigEndian(sector.AsSpan(24), Size);
        BinaryPrimitives.WriteInt32BigEndian(sector.AsSpan(36), L1Entries);
        BinaryPrimitives.WriteInt64BigEndian(sector.AsSpan(40), L1Offset);
        BinaryPrimitives.WriteInt64BigEndian(sector.AsSpan(48), RefcountTableOffset);
        BinaryPrimitives.WriteInt32BigEndian(sector.AsSpan(56), RefcountTableClusters);
        BinaryPrimitives.WriteUInt64BigEndian(sector.AsSpan(72), IsDirty ? DirtyBit : 0);

        // Whoever writes clears the automatic features it does not maintain, and this maintains none.
        BinaryPrimitives.WriteUInt64BigEndian(sector.AsSpan(88), 0);
        return sector;
    }

    /// <summary>The header with another backing file of the same format.</summary>
    /// <param name="name">Its name, as long as that of the old one.</param>
    /// <returns><see langword="null"/> when the change would not be one of the first sector.</returns>
    internal Qcow2Header? TryWithBackingFile(string name)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(name);
        ulong offset = BinaryPrimitives.ReadUInt64BigEndian(_sector.AsSpan(8));
        uint length = BinaryPrimitives.ReadUInt32BigEndian(_sector.AsSpan(16));
        if (offset == 0 || length != bytes.Length || offset + length > SectorSize)
        {
            return null;
        }

        Qcow2Header header = Clone();
        bytes.CopyTo(header._sector, (int)offset);
        return header;
    }

    /// <summary>A copy, for changes that may fail.</summary>
    internal Qcow2Header Clone() => new([.. _sector])
    {
        Version = Version,
        ClusterBits = ClusterBits,
        RefcountOrder = RefcountOrder,
        Size = Size,
        L1Offset = L1Offset,
        L1Entries = L1Entries,
        RefcountTableOffset = RefcountTableOffset,
        RefcountTableClusters = RefcountTableClusters,
        IsDirty = IsDirty,
        IsCorrupt = IsCorrupt,
        InternalSnapshots = InternalSnapshots,
        HasBitmaps = HasBitmaps,
        BackingFile = BackingFile,
        BackingFormat = BackingFormat,
        Identity = Identity,
    };

    /// <summary>Refuses to write to an image whose contents cannot be kept consistent.</summary>
    /// <exception cref="DiskImageException">Why it can only be read.</exception>
    internal void ThrowIfNotWritable(string path)
    {
        string? reason = this switch
        {
            { Version: 2 } => "is of version 2: qemu-img amend -o compat=1.1 makes it version 3",
            { InternalSnapshots: > 0 } => "has internal snapshots: delete them with qemu-img snapshot -d",
            { HasBitmaps: true } => "has bitmaps: remove them with qemu-img bitmap --remove",
            _ => null,
        };
        if (reason is not null)
        {
            throw new DiskImageException(DiskImageError.Unsupported, path, $"The disk image '{path}' can only be read, for it {reason}.");
        }

        if (IsCorrupt)
        {
            throw new DiskImageException(
                DiskImageError.Corrupt,
                path,
                $"The disk image '{path}' can only be read, for it is marked as corrupt: repair it with qemu-img check -r all.");
        }
    }

    private static Qcow2Header Parse(IImageFile file, ReadOnlySpan<byte> cluster, int version, int clusterBits)
    {
        string path = file.Path;
        if (BinaryPrimitives.ReadUInt32BigEndian(cluster[32..]) != 0)
        {
            throw Unsupported(path, "encryption");
        }

        ulong incompatible = 0;
        uint order = RefcountBlocks.DefaultOrder;
        uint headerLength = LengthOfV2;
        if (version == 3)
        {
            if (cluster.Length < LengthOfV3)
            {
                throw Corrupt(path, "no room for a header of version 3");
            }

            incompatible = BinaryPrimitives.ReadUInt64BigEndian(cluster[72..]);
            order = BinaryPrimitives.ReadUInt32BigEndian(cluster[96..]);
            headerLength = BinaryPrimitives.ReadUInt32BigEndian(cluster[100..]);
            if (headerLength < LengthOfV3 || headerLength > cluster.Length || headerLength % 8 != 0)
            {
                throw Corrupt(path, string.Create(CultureInfo.InvariantCulture, $"a header of {headerLength} bytes"));
            }

            if (order > RefcountBlocks.MaxOrder)
            {
                throw Corrupt(path, string.Create(CultureInfo.InvariantCulture, $"refcounts of 2^{order} bits"));
            }
        }

        Extensions extensions = ReadExtensions(path, cluster, (int)headerLength);
        ulong unsupported = incompatible & ~(DirtyBit | CorruptBit);
        if (unsupported != 0)
        {
            int bit = BitOperations.TrailingZeroCount(unsupported);
            throw Unsupported(path, bit < KnownFeatures.Length ? KnownFeatures[bit]
                : extensions.FeatureNames.GetValueOrDefault(bit)
                ?? string.Create(CultureInfo.InvariantCulture, $"the unknown incompatible feature {bit}"));
        }

        long size = BinaryPrimitives.ReadInt64BigEndian(cluster[24..]);
        uint l1Entries = BinaryPrimitives.ReadUInt32BigEndian(cluster[36..]);
        if (size < 0 || L1EntriesFor(size, clusterBits) > Math.Min(l1Entries, MaxL1Entries) || l1Entries > MaxL1Entries)
        {
            throw Corrupt(path, string.Create(CultureInfo.InvariantCulture, $"a disk of {(ulong)size} bytes with an L1 table of {l1Entries} entries"));
        }

        Qcow2Header header = new(cluster.Length >= SectorSize ? cluster[..SectorSize].ToArray() : [.. cluster, .. new byte[SectorSize - cluster.Length]])
        {
            Version = version,
            ClusterBits = clusterBits,
            RefcountOrder = (int)order,
            Size = size,
            L1Offset = BinaryPrimitives.ReadInt64BigEndian(cluster[40..]),
            L1Entries = (int)l1Entries,
            RefcountTableOffset = BinaryPrimitives.ReadInt64BigEndian(cluster[48..]),
            RefcountTableClusters = (int)Math.Min(int.MaxValue, BinaryPrimitives.ReadUInt32BigEndian(cluster[56..])),
            IsDirty = (incompatible & DirtyBit) != 0,
            IsCorrupt = (incompatible & CorruptBit) != 0,
            InternalSnapshots = BinaryPrimitives.ReadUInt32BigEndian(cluster[60..]),
            HasBitmaps = extensions.HasBitmaps,
            BackingFile = ReadBackingFile(path, cluster),
            BackingFormat = extensions.BackingFormat,
            Identity = extensions.Identity,
        };
        header.CheckTables(path, file.Length);
        return header;
    }

    // Whether what a header consists of ends in the beginning of it that was read: what contradicts itself does not.
    private static bool HasWholeHeader(ReadOnlySpan<byte> start)
    {
        ulong nameOffset = BinaryPrimitives.ReadUInt64BigEndian(start[8..]);
        ulong nameEnd = nameOffset is 0 or > UsualLength ? nameOffset : nameOffset + BinaryPrimitives.ReadUInt32BigEndian(start[16..]);
        long position = BinaryPrimitives.ReadUInt32BigEndian(start[4..]) == 2 ? LengthOfV2 : BinaryPrimitives.ReadUInt32BigEndian(start[100..]);
        while (nameEnd <= (ulong)start.Length && position + 8 <= start.Length)
        {
            if (BinaryPrimitives.ReadUInt32BigEndian(start[(int)position..]) == 0)
            {
                return true;
            }

            position += 8 + (((long)BinaryPrimitives.ReadUInt32BigEndian(start[((int)position + 4)..]) + 7) & ~7L);
        }

        return false;
    }

    private static string? ReadBackingFile(string path, ReadOnlySpan<byte> cluster)
    {
        ulong offset = BinaryPrimitives.ReadUInt64BigEndian(cluster[8..]);
        uint length = BinaryPrimitives.ReadUInt32BigEndian(cluster[16..]);
        if (offset == 0)
        {
            return null;
        }

        if (length is 0 or > MaxBackingName || offset > (ulong)cluster.Length - length)
        {
            throw Corrupt(path, "a name of a backing file outside its first cluster");
        }

        string name = Encoding.UTF8.GetString(cluster.Slice((int)offset, (int)length));
        return name.Contains('\0', StringComparison.Ordinal) ? throw Corrupt(path, "a zero in the name of its backing file") : name;
    }

    private static Extensions ReadExtensions(string path, ReadOnlySpan<byte> cluster, int position)
    {
        const int FeatureNameLength = 48;
        Extensions found = new();
        while (position + 8 <= cluster.Length)
        {
            uint type = BinaryPrimitives.ReadUInt32BigEndian(cluster[position..]);
            uint length = BinaryPrimitives.ReadUInt32BigEndian(cluster[(position + 4)..]);
            position += 8;
            if (type == 0)
            {
                break;
            }

            if (length > cluster.Length - position)
            {
                throw Corrupt(path, "a header extension that does not end in the first cluster");
            }

            ReadOnlySpan<byte> data = cluster.Slice(position, (int)length);
            switch (type)
            {
                case BackingFormatExtension:
                    found.BackingFormat = Encoding.UTF8.GetString(data);
                    break;
                case IdentityExtension when length == IdentityLength:
                    found.Identity = new Guid(data, bigEndian: true);
                    break;
                case BitmapsExtension:
                    found.HasBitmaps = true;
                    break;
                case FeatureNamesExtension:
                    for (; data.Length >= FeatureNameLength; data = data[FeatureNameLength..])
                    {
                        // The names are the file's own words: printable ones only.
                        if (data[0] == 0)
                        {
                            found.FeatureNames[data[1]] = new string([.. Encoding.ASCII.GetString(data[2..FeatureNameLength])
                                .TakeWhile(character => character != '\0')
                                .Where(character => !char.IsControl(character))]);
                        }
                    }

                    break;
            }

            position += (int)((length + 7) & ~7u);
        }

        return found;
    }

    private static DiskImageException Corrupt(string path, string what) =>
        new(DiskImageError.Corrupt, path, $"The disk image '{path}' is corrupt: it has {what}. Try qemu-img check, or take a copy that is whole.");

    private static DiskImageException Unsupported(string path, string what) => new(
        DiskImageError.Unsupported,
        path,
        $"The disk image '{path}' uses {what}, which is not supported. Convert it with qemu-img convert -O qcow2 -o compat=1.1.");

    private void CheckTables(string path, long fileLength)
    {
        long clusterMask = ClusterSize - 1;
        (long start, long end) l1 = (L1Offset, L1Offset + ((L1Entries * (long)sizeof(ulong) + clusterMask) & ~clusterMask));
        if (L1Entries > 0 && !IsInFile(L1Offset, L1Entries * (long)sizeof(ulong), fileLength))
        {
            throw Corrupt(path, "an L1 table outside the file");
        }

        // The refcounts of an image that was not closed are made anew, wherever the table of the old ones was said to be.
        if (IsDirty)
        {
            return;
        }

        long tableLength = (long)RefcountTableClusters << ClusterBits;
        if (RefcountTableClusters == 0 || tableLength > Math.Max(MaxRefcountTableBytes, ClusterSize) || !IsInFile(RefcountTableOffset, tableLength, fileLength))
        {
            throw Corrupt(path, "a refcount table outside the file");
        }

        if (L1Entries > 0 && RefcountTableOffset < l1.end && l1.start < RefcountTableOffset + tableLength)
        {
            throw Corrupt(path, "an L1 table and a refcount table that overlap");
        }
    }

    // The last cluster of a file may end early.
    private bool IsInFile(long offset, long length, long fileLength) =>
        offset >= ClusterSize && (offset & (ClusterSize - 1)) == 0 && offset < fileLength && length <= fileLength - offset + ClusterSize - 1;

    private sealed class Extensions
    {
        internal string? BackingFormat { get; set; }

        internal Guid? Identity { get; set; }

        internal bool HasBitmaps { get; set; }

        internal Dictionary<int, string> FeatureNames { get; } = [];
    }
}

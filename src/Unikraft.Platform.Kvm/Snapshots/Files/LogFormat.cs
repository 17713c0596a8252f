using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>The layout of a publication log, as docs/snapshot-format.md has it. All numbers are little-endian.</summary>
internal static class LogFormat
{
    internal const string Name = "publication.log";

    /// <summary>The two places of the header, and everything else, begin at multiples of this.</summary>
    internal const int Block = PageSize.Bytes;

    /// <summary>Where the first record may lie, behind both headers.</summary>
    internal const int RecordsStart = 2 * Block;
    internal const int MaxLayers = 64;

    /// <summary>A log never has so many records that a number could overflow.</summary>
    private const long MaxSequence = long.MaxValue / 2;

    private const uint Version = 1;
    private const int HeaderFields = 64;
    private const int RecordFields = 96;
    private const int LayerSize = 40;
    private const int DigestOffset = Block - Digest.SizeInBytes;

    private static ReadOnlySpan<byte> HeaderMagic => "UKPUBLG\u001a"u8;

    private static ReadOnlySpan<byte> RecordMagic => "UKPUBLR\u001a"u8;

    internal static long Align(long length) => (length + Block - 1) / Block * Block;

    internal static long WholeBlocks(long length) => length / Block * Block;

    /// <summary>The number of bytes that a record takes.</summary>
    /// <param name="indexes">The pages of each layer.</param>
    /// <param name="stateLength">The length of the state.</param>
    internal static long LengthOf(IEnumerable<PageIndex> indexes, int stateLength)
    {
        long runs = 0;
        long pages = 0;
        foreach (PageIndex index in indexes)
        {
            runs += index.Runs.Length;
            pages += index.StoredPages;
        }

        return Block + Align(runs * LayerFormat.RunSize + stateLength) + (pages << PageSize.Shift);
    }

    internal static void WriteHeader(Span<byte> block, in LogHeader header)
    {
        block.Clear();
        HeaderMagic.CopyTo(block);
        BinaryPrimitives.WriteUInt32LittleEndian(block[8..], Version);
        header.Log.TryWriteBytes(block[16..], bigEndian: true, out _);
        BinaryPrimitives.WriteInt64LittleEndian(block[32..], header.Count);
        BinaryPrimitives.WriteInt64LittleEndian(block[40..], header.Sequence);
        BinaryPrimitives.WriteInt64LittleEndian(block[48..], header.Offset);
        BinaryPrimitives.WriteInt64LittleEndian(block[56..], header.Length);
        Digest.Compute(block[..HeaderFields]).Write(block[HeaderFields..]);
    }

    /// <returns>The header; <see langword="null"/> when it is not as it was written.</returns>
    /// <exception cref="FileDamageException">It is of another version.</exception>
    internal static LogHeader? TryReadHeader(ReadOnlySpan<byte> block)
    {
        if (!block.StartsWith(HeaderMagic) || Digest.Compute(block[..HeaderFields]) != Digest.Read(block[HeaderFields..]))
        {
            return null;
        }

        uint version = BinaryPrimitives.ReadUInt32LittleEndian(block[8..]);
        if (version != Version)
        {
            throw new FileDamageException(
                SnapshotFileError.UnknownVersion,
                $"is in version {version} of the format of publication logs, and this version of the platform reads version {Version}");
        }

        LogHeader header = new(
            new Guid(block.Slice(16, 16), bigEndian: true),
            BinaryPrimitives.ReadInt64LittleEndian(block[32..]),
            BinaryPrimitives.ReadInt64LittleEndian(block[40..]),
            BinaryPrimitives.ReadInt64LittleEndian(block[48..]),
            BinaryPrimitives.ReadInt64LittleEndian(block[56..]));
        bool isSound = header.Length % Block == 0 && header.Sequence is >= 1 and <= MaxSequence && header.Count >= 0
            && header.Offset >= RecordsStart && header.Offset <= header.Length && header.Offset % Block == 0;
        return isSound ? header : null;
    }

    internal static void WriteRecord(Span<byte> block, in RecordHeader header, ReadOnlySpan<LayerHeader> layers)
    {
        block.Clear();
        RecordMagic.CopyTo(block);
        BinaryPrimitives.WriteUInt32LittleEndian(block[8..], (uint)layers.Length);
        BinaryPrimitives.WriteInt32LittleEndian(block[12..], header.StateLength);
        header.Log.TryWriteBytes(block[16..], bigEndian: true, out _);
        BinaryPrimitives.WriteInt64LittleEndian(block[32..], header.Sequence);
        BinaryPrimitives.WriteInt64LittleEndian(block[40..], header.Length);
        header.Snapshot.TryWriteBytes(block[48..], bigEndian: true, out _);
        header.Body.Write(block[64..]);
        Span<byte> rest = block[RecordFields..];
        foreach (LayerHeader layer in layers)
        {
            layer.Id.TryWriteBytes(rest, bigEndian: true, out _);
            BinaryPrimitives.WriteInt64LittleEndian(rest[16..], layer.GuestPages);
            BinaryPrimitives.WriteInt64LittleEndian(rest[24..], layer.StoredPages);
            BinaryPrimitives.WriteInt64LittleEndian(rest[32..], layer.Runs);
            rest = rest[LayerSize..];
        }

        Digest.Compute(block[..DigestOffset]).Write(block[DigestOffset..]);
    }

    /// <returns>The number of the record that begins here; <see langword="null"/> when none of this log does.</returns>
    internal static long? SequenceOf(ReadOnlySpan<byte> block, Guid log) =>
        block.StartsWith(RecordMagic)
        && new Guid(block.Slice(16, 16), bigEndian: true) == log
        && Digest.Compute(block[..DigestOffset]) == Digest.Read(block[DigestOffset..])
            ? BinaryPrimitives.ReadInt64LittleEndian(block[32..])
            : null;

    /// <returns>The record, whose body is not checked; <see langword="null"/> when there is none of this number.</returns>
    internal static RecordHeader? TryReadRecord(ReadOnlySpan<byte> block, in LogHeader log, long sequence, long offset, List<LayerHeader> layers)
    {
        layers.Clear();
        if (!block.StartsWith(RecordMagic)
            || new Guid(block.Slice(16, 16), bigEndian: true) != log.Log
            || BinaryPrimitives.ReadInt64LittleEndian(block[32..]) != sequence
            || Digest.Compute(block[..DigestOffset]) != Digest.Read(block[DigestOffset..]))
        {
            return null;
        }

        RecordHeader header = new(
            log.Log,
            sequence,
            BinaryPrimitives.ReadInt64LittleEndian(block[40..]),
            new Guid(block.Slice(48, 16), bigEndian: true),
            BinaryPrimitives.ReadInt32LittleEndian(block[12..]),
            default);
        uint count = BinaryPrimitives.ReadUInt32LittleEndian(block[8..]);
        if (header.Length < Block || header.Length % Block != 0 || header.Length > log.Length - offset || count > MaxLayers || header.StateLength < 0)
        {
            return null;
        }

        ReadOnlySpan<byte> rest = block[RecordFields..];
        long runs = 0;
        long pages = 0;
        for (uint i = 0; i < count; i++)
        {
            long guestPages = BinaryPrimitives.ReadInt64LittleEndian(rest[16..]);
            long storedPages = BinaryPrimitives.ReadInt64LittleEndian(rest[24..]);
            long layerRuns = BinaryPrimitives.ReadInt64LittleEndian(rest[32..]);
            if (guestPages is < 1 or > LayerFormat.MaxPages || storedPages < 1 || storedPages > guestPages || layerRuns < 1 || layerRuns > storedPages)
            {
                return null;
            }

            layers.Add(new LayerHeader(new Guid(rest[..16], bigEndian: true), (int)guestPages, (int)storedPages, (int)layerRuns));
            runs += layerRuns;
            pages += storedPages;
            rest = rest[LayerSize..];
        }

        // No state and no layers: what follows is at the beginning of the file.
        bool isMark = header.StateLength == 0 && count == 0 && header.Length == Block;
        return isMark || header.Length == Block + Align(runs * LayerFormat.RunSize + header.StateLength) + (pages << PageSize.Shift) ? header : null;
    }

    internal static ReadOnlySpan<byte> BodyChecksumOf(ReadOnlySpan<byte> block) => block.Slice(64, RecordChecksum.SizeInBytes);
}

/// <summary>Where the records of a publication log begin that are still needed.</summary>
/// <param name="Log">The log: records of another one that lie in the same place are none.</param>
/// <param name="Count">Counts the changes of the header, which are written to two places in turn.</param>
/// <param name="Sequence">The number of the first record that is needed.</param>
/// <param name="Offset">Where it lies, or will.</param>
/// <param name="Length">The length of the log. What is behind it in the file, if anything, is no part of it; a file that is shorter was cut off.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct LogHeader(Guid Log, long Count, long Sequence, long Offset, long Length);

/// <summary>What a record begins with.</summary>
/// <param name="Log">The log.</param>
/// <param name="Sequence">Its number, counted from 1.</param>
/// <param name="Length">Its length.</param>
/// <param name="Snapshot">The snapshot.</param>
/// <param name="StateLength">The length of the state of the snapshot; 0 for a mark that the next record lies at the beginning of the file.</param>
/// <param name="Body">The checksum of what follows.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct RecordHeader(Guid Log, long Sequence, long Length, Guid Snapshot, int StateLength, RecordChecksum Body);

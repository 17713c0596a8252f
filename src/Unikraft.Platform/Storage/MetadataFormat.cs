using System.Buffers.Binary;

namespace Unikraft.Platform.Storage;

/// <summary>Writes and reads metadata files. The layout is that of docs/data-directory.md; all numbers are little-endian.</summary>
/// <remarks>What is read is hostile: everything is checked before it is used.</remarks>
internal static class MetadataFormat
{
    internal const int HeaderSize = 96;
    internal const int FrameHeaderSize = 48;
    internal const int FrameOverhead = (2 * FrameHeaderSize) + Checksum.Size;
    internal const int ChangeHeaderSize = 40;

    /// <summary>The most bytes of changes in one frame.</summary>
    internal const int MaxBodySize = 64 << 20;

    /// <summary>The flag of the last frame of a snapshot.</summary>
    internal const uint IsLast = 1;

    private const uint Version = 1;
    private const uint FrameMagic = 0x4D52464B;
    private const uint TrailerMagic = 0x4D52544B;
    private const int CoveredByHeader = 32;
    private const int ChangeCovered = 24;

    private static ReadOnlySpan<byte> SnapshotMagic => "UKMETAS\u001a"u8;

    private static ReadOnlySpan<byte> JournalMagic => "UKMETAJ\u001a"u8;

    internal static string NameOf(long generation, bool isSnapshot) =>
        FormattableString.Invariant($"{generation:D10}.{(isSnapshot ? "snapshot" : "journal")}");

    internal static bool TryParseName(string name, out long generation, out bool isSnapshot)
    {
        isSnapshot = name.EndsWith(".snapshot", StringComparison.Ordinal);
        string suffix = isSnapshot ? ".snapshot" : ".journal";
        generation = 0;
        return name.Length == 10 + suffix.Length
            && name.EndsWith(suffix, StringComparison.Ordinal)
            && long.TryParse(name.AsSpan(0, 10), System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out generation);
    }

    internal static byte[] EncodeHeader(MetadataHeader header)
    {
        byte[] bytes = new byte[HeaderSize];
        (header.IsSnapshot ? SnapshotMagic : JournalMagic).CopyTo(bytes);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(8), Version);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(12), HeaderSize);
        BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(16), header.Generation);
        BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(24), header.Sequence);
        header.Base.Write(bytes.AsSpan(32));
        Checksum.Of(bytes.AsSpan(0, 64)).Write(bytes.AsSpan(64));
        return bytes;
    }

    /// <exception cref="MetadataDamageException">It is not as it was written.</exception>
    internal static MetadataHeader DecodeHeader(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < HeaderSize)
        {
            throw new MetadataDamageException($"has {bytes.Length} bytes, fewer than its header");
        }

        bool isSnapshot = bytes.StartsWith(SnapshotMagic);
        if ((!isSnapshot && !bytes.StartsWith(JournalMagic)) || Checksum.Of(bytes[..64]) != Checksum.Read(bytes[64..]))
        {
            throw new MetadataDamageException("has a damaged header");
        }

        uint version = BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
        long generation = BinaryPrimitives.ReadInt64LittleEndian(bytes[16..]);
        long sequence = BinaryPrimitives.ReadInt64LittleEndian(bytes[24..]);
        return version == Version && BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]) == HeaderSize && generation >= 1 && sequence >= 0
            ? new MetadataHeader(isSnapshot, generation, sequence, Checksum.Read(bytes[32..]))
            : throw new MetadataDamageException(FormattableString.Invariant($"is of version {version}, not {Version}, or contradicts itself"));
    }

    /// <summary>Makes a frame of changes.</summary>
    /// <param name="sequence">Counts the frames of a directory, from 1.</param>
    /// <param name="serviceTime">How long the directory had been in use, in units of 100 ns.</param>
    /// <param name="changes">The changes: all of them hold, or none.</param>
    /// <param name="flags">The flags.</param>
    /// <param name="chain">The checksum of all frames before; that of all frames with this one afterwards.</param>
    internal static byte[] EncodeFrame(long sequence, long serviceTime, IReadOnlyCollection<StateChange> changes, uint flags, ref Checksum chain)
    {
        int bodySize = checked(changes.Sum(static change => ChangeHeaderSize + change.Payload.Length));
        byte[] bytes = new byte[FrameOverhead + bodySize];
        Span<byte> header = bytes.AsSpan(0, FrameHeaderSize);
        WriteFrameHeader(header, FrameMagic, bodySize, sequence, serviceTime, changes.Count, flags);
        Span<byte> rest = bytes.AsSpan(FrameHeaderSize);
        foreach (StateChange change in changes)
        {
            ReadOnlySpan<byte> payload = change.Payload.Span;
            rest[0] = (byte)change.Key.Kind;
            rest[1] = (byte)change.Kind;
            BinaryPrimitives.WriteInt32LittleEndian(rest[4..], payload.Length);
            change.Key.Uuid.TryWriteBytes(rest[8..], bigEndian: true, out _);
            Checksum.Of(rest[..ChangeCovered], payload).WriteShort(rest[ChangeCovered..]);
            payload.CopyTo(rest[ChangeHeaderSize..]);
            rest = rest[(ChangeHeaderSize + payload.Length)..];
        }

        chain = Checksum.Of(chain, header[..CoveredByHeader], bytes.AsSpan(FrameHeaderSize, bodySize));
        chain.Write(rest);
        WriteFrameHeader(rest[Checksum.Size..], TrailerMagic, bodySize, sequence, serviceTime, changes.Count, flags);
        return bytes;
    }

    /// <summary>Reads the header of a frame.</summary>
    /// <returns><see langword="null"/> when there is none, or it is not as it was written.</returns>
    internal static FrameHeader? TryReadFrameHeader(ReadOnlySpan<byte> bytes, bool isTrailer = false)
    {
        if (bytes.Length < FrameHeaderSize
            || BinaryPrimitives.ReadUInt32LittleEndian(bytes) != (isTrailer ? TrailerMagic : FrameMagic)
            || !Checksum.Of(bytes[..CoveredByHeader]).IsShort(bytes[CoveredByHeader..]))
        {
            return null;
        }

        int bodySize = BinaryPrimitives.ReadInt32LittleEndian(bytes[4..]);
        long sequence = BinaryPrimitives.ReadInt64LittleEndian(bytes[8..]);
        long serviceTime = BinaryPrimitives.ReadInt64LittleEndian(bytes[16..]);
        int changes = BinaryPrimitives.ReadInt32LittleEndian(bytes[24..]);
        return bodySize is >= 0 and <= MaxBodySize && sequence >= 1 && serviceTime >= 0 && changes >= 0
            ? new FrameHeader(bodySize, sequence, serviceTime, changes, BinaryPrimitives.ReadUInt32LittleEndian(bytes[28..]))
            : null;
    }

    /// <summary>The checksum of all frames up to one.</summary>
    internal static Checksum ChainOf(Checksum before, ReadOnlySpan<byte> header, ReadOnlySpan<byte> body) =>
        Checksum.Of(before, header[..CoveredByHeader], body);

    /// <summary>Reads the changes of a frame.</summary>
    /// <param name="body">The body of the frame.</param>
    /// <param name="count">How many there are.</param>
    /// <param name="isSound">Whether the frame is known to be as it was written.</param>
    /// <exception cref="MetadataDamageException">Nobody can tell what was changed. Where only the payload is damaged, the change says so.</exception>
    internal static List<StateChange> DecodeChanges(ReadOnlyMemory<byte> body, int count, bool isSound)
    {
        List<StateChange> changes = [];
        while (!body.IsEmpty)
        {
            ReadOnlySpan<byte> bytes = body.Span;
            int length = bytes.Length < ChangeHeaderSize ? -1 : BinaryPrimitives.ReadInt32LittleEndian(bytes[4..]);
            if (length < 0 || length > bytes.Length - ChangeHeaderSize)
            {
                throw new MetadataDamageException("has a change that is longer than its frame");
            }

            StateKey key = new((StateKind)bytes[0], new Guid(bytes.Slice(8, 16), bigEndian: true));
            StateChangeKind kind = (StateChangeKind)bytes[1];
            ReadOnlyMemory<byte> payload = body.Slice(ChangeHeaderSize, length);
            if (!Enum.IsDefined(key.Kind) || !Enum.IsDefined(kind) || bytes[2] != 0 || bytes[3] != 0)
            {
                throw new MetadataDamageException("has a change of an unknown kind");
            }

            bool isIntact = isSound || Checksum.Of(bytes[..ChangeCovered], payload.Span).IsShort(bytes[ChangeCovered..]);
            changes.Add(isIntact ? new StateChange(key, kind, payload) : new StateChange(key, StateChangeKind.Damaged, "its metadata are damaged"u8.ToArray()));
            body = body[(ChangeHeaderSize + length)..];
        }

        return changes.Count == count ? changes : throw new MetadataDamageException($"has a frame of {changes.Count} changes instead of {count}");
    }

    private static void WriteFrameHeader(Span<byte> header, uint magic, int bodySize, long sequence, long serviceTime, int changes, uint flags)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(header, magic);
        BinaryPrimitives.WriteInt32LittleEndian(header[4..], bodySize);
        BinaryPrimitives.WriteInt64LittleEndian(header[8..], sequence);
        BinaryPrimitives.WriteInt64LittleEndian(header[16..], serviceTime);
        BinaryPrimitives.WriteInt32LittleEndian(header[24..], changes);
        BinaryPrimitives.WriteUInt32LittleEndian(header[28..], flags);
        Checksum.Of(header[..CoveredByHeader]).WriteShort(header[CoveredByHeader..]);
    }
}

/// <summary>What a metadata file begins with.</summary>
/// <param name="IsSnapshot">Whether it holds everything, or what has changed since.</param>
/// <param name="Generation">Counts the snapshots of a directory, from 1.</param>
/// <param name="Sequence">The number of the last frame before the file.</param>
/// <param name="Base">The root checksum of the file that it builds on.</param>
internal sealed record MetadataHeader(bool IsSnapshot, long Generation, long Sequence, Checksum Base);

/// <summary>What a frame begins and ends with.</summary>
internal sealed record FrameHeader(int BodySize, long Sequence, long ServiceTime, int Changes, uint Flags)
{
    internal int Length => MetadataFormat.FrameOverhead + BodySize;
}

/// <summary>A metadata file is not as it was written. Callers of the library get a <see cref="DataDamageException"/>.</summary>
/// <param name="message">What is wrong in words, to follow the name of the file.</param>
internal sealed class MetadataDamageException(string message) : FormatException(message);

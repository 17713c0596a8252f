using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>The layout of a layer file, as docs/snapshot-format.md has it. All numbers are little-endian.</summary>
internal static class LayerFormat
{
    internal const string Suffix = ".layer";
    internal const uint Version = 1;

    /// <summary>The header takes a page, so that the pages behind it are aligned.</summary>
    internal const int HeaderSize = PageSize.Bytes;
    internal const int ChunkPages = 64;
    internal const int ChunkSize = ChunkPages * PageSize.Bytes;
    internal const int RunSize = 8;
    internal const int FooterSize = 144;

    /// <summary>256 GiB, behind which the devices lie.</summary>
    internal const int MaxPages = 1 << 26;

    private const int HeaderFieldsSize = 64;

    private static ReadOnlySpan<byte> HeaderMagic => "UKLAYER\u001a"u8;

    private static ReadOnlySpan<byte> FooterMagic => "UKLAYEND"u8;

    internal static string NameOf(Guid id) => $"{id:D}{Suffix}";

    internal static long ContentEnd(int storedPages) => HeaderSize + ((long)storedPages << PageSize.Shift);

    internal static int Chunks(int storedPages) => (storedPages + ChunkPages - 1) / ChunkPages;

    internal static long Length(int storedPages, int runs) =>
        ContentEnd(storedPages) + (long)runs * RunSize + (long)Chunks(storedPages) * Digest.SizeInBytes + FooterSize;

    internal static void WriteHeader(Span<byte> header, in LayerHeader fields)
    {
        header.Clear();
        HeaderMagic.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header[8..], Version);
        BinaryPrimitives.WriteUInt32LittleEndian(header[12..], HeaderSize);
        BinaryPrimitives.WriteUInt32LittleEndian(header[16..], PageSize.Bytes);
        BinaryPrimitives.WriteUInt32LittleEndian(header[20..], ChunkPages);
        fields.Id.TryWriteBytes(header[24..], bigEndian: true, out _);
        BinaryPrimitives.WriteInt64LittleEndian(header[40..], fields.GuestPages);
        BinaryPrimitives.WriteInt64LittleEndian(header[48..], fields.StoredPages);
        BinaryPrimitives.WriteInt64LittleEndian(header[56..], fields.Runs);
    }

    /// <exception cref="FileDamageException">It is no such header.</exception>
    internal static LayerHeader ReadHeader(ReadOnlySpan<byte> header)
    {
        if (!header.StartsWith(HeaderMagic))
        {
            throw FileDamageException.Damaged("does not begin like a layer file");
        }

        uint version = BinaryPrimitives.ReadUInt32LittleEndian(header[8..]);
        if (version != Version)
        {
            throw new FileDamageException(
                SnapshotFileError.UnknownVersion,
                $"is in version {version} of the layer format, and this version of the platform reads version {Version}");
        }

        uint headerSize = BinaryPrimitives.ReadUInt32LittleEndian(header[12..]);
        uint pageSize = BinaryPrimitives.ReadUInt32LittleEndian(header[16..]);
        uint chunkPages = BinaryPrimitives.ReadUInt32LittleEndian(header[20..]);
        long guestPages = BinaryPrimitives.ReadInt64LittleEndian(header[40..]);
        long storedPages = BinaryPrimitives.ReadInt64LittleEndian(header[48..]);
        long runs = BinaryPrimitives.ReadInt64LittleEndian(header[56..]);
        if (headerSize != HeaderSize || pageSize != PageSize.Bytes || chunkPages != ChunkPages
            || guestPages is < 1 or > MaxPages
            || storedPages < 1 || storedPages > guestPages
            || runs < 1 || runs > storedPages
            || header[HeaderFieldsSize..].ContainsAnyExcept((byte)0))
        {
            throw FileDamageException.Damaged("has a header with values that cannot be");
        }

        return new LayerHeader(new Guid(header.Slice(24, 16), bigEndian: true), (int)guestPages, (int)storedPages, (int)runs);
    }

    internal static void WriteIndex(Span<byte> bytes, PageIndex index)
    {
        foreach (PageRun run in index.Runs)
        {
            BinaryPrimitives.WriteInt32LittleEndian(bytes, run.Start);
            BinaryPrimitives.WriteInt32LittleEndian(bytes[4..], run.Length);
            bytes = bytes[RunSize..];
        }
    }

    /// <exception cref="FileDamageException">It does not fit the header.</exception>
    internal static PageIndex ReadIndex(ReadOnlySpan<byte> bytes, in LayerHeader header)
    {
        PageRun[] runs = new PageRun[header.Runs];
        int free = 0;
        long stored = 0;
        for (int i = 0; i < runs.Length; i++)
        {
            int start = BinaryPrimitives.ReadInt32LittleEndian(bytes[(i * RunSize)..]);
            int length = BinaryPrimitives.ReadInt32LittleEndian(bytes[(i * RunSize + 4)..]);

            // Runs that touch would be one run.
            if (start < free || length < 1 || length > header.GuestPages - start)
            {
                throw FileDamageException.Damaged($"has a page index whose run {i} cannot be");
            }

            runs[i] = new PageRun(start, length);
            free = start + length + 1;
            stored += length;
        }

        return stored == header.StoredPages
            ? new PageIndex(runs)
            : throw FileDamageException.Damaged($"has a page index of {stored} pages for {header.StoredPages} stored ones");
    }

    /// <returns>The root checksum.</returns>
    internal static Digest WriteFooter(Span<byte> footer, long length, Digest header, Digest index, Digest checksums)
    {
        FooterMagic.CopyTo(footer);
        BinaryPrimitives.WriteInt64LittleEndian(footer[8..], length);
        header.Write(footer[16..]);
        index.Write(footer[48..]);
        checksums.Write(footer[80..]);
        Digest root = Digest.Compute(footer[..112]);
        root.Write(footer[112..]);
        return root;
    }
}

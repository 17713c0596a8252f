using System.Buffers;
using CommunityToolkit.HighPerformance.Buffers;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>Reads a run of pages.</summary>
/// <param name="destination">Where to, in whole pages.</param>
/// <param name="page">The first page.</param>
internal delegate void PageReader(Span<byte> destination, int page);

/// <summary>Writes and reads layer files.</summary>
internal static class LayerFile
{
    // So many pages are written and hashed at a time.
    private const int WindowPages = 4 * LayerFormat.ChunkPages;
    private const int WindowSize = WindowPages * PageSize.Bytes;

    /// <summary>Writes a layer.</summary>
    /// <param name="file">The file, empty.</param>
    /// <param name="id">The layer.</param>
    /// <param name="read">Reads pages of it, all of one run.</param>
    /// <param name="index">The pages that it holds.</param>
    /// <param name="guestPages">The number of pages of the guest.</param>
    /// <param name="onBytes">Told of each part of the memory that is done.</param>
    /// <param name="cancellationToken">Cancels the writing.</param>
    /// <returns>The root checksum.</returns>
    internal static Digest Write(
        StoredFile file,
        Guid id,
        PageReader read,
        PageIndex index,
        int guestPages,
        Action<long> onBytes,
        CancellationToken cancellationToken)
    {
        byte[] window = ArrayPool<byte>.Shared.Rent(WindowSize);
        try
        {
            byte[] checksums = new byte[LayerFormat.Chunks(index.StoredPages) * Digest.SizeInBytes];
            Span<byte> header = window.AsSpan(0, LayerFormat.HeaderSize);
            LayerFormat.WriteHeader(header, new LayerHeader(id, guestPages, index.StoredPages, index.Runs.Length));
            Digest headerDigest = Digest.Compute(header);
            file.Append(header);

            int filled = 0;
            int chunks = 0;
            foreach (PageRun run in index.Runs)
            {
                for (int page = run.Start; page < run.End;)
                {
                    int pages = Math.Min(run.End - page, WindowPages - filled);
                    read(window.AsSpan(filled << PageSize.Shift, pages << PageSize.Shift), page);
                    page += pages;
                    filled += pages;
                    if (filled == WindowPages)
                    {
                        WriteWindow();
                    }
                }
            }

            if (filled > 0)
            {
                WriteWindow();
            }

            int runsSize = index.Runs.Length * LayerFormat.RunSize;
            byte[] tail = new byte[runsSize + checksums.Length + LayerFormat.FooterSize];
            LayerFormat.WriteIndex(tail, index);
            checksums.CopyTo(tail.AsSpan(runsSize));
            Digest root = LayerFormat.WriteFooter(
                tail.AsSpan(runsSize + checksums.Length),
                LayerFormat.Length(index.StoredPages, index.Runs.Length),
                headerDigest,
                Digest.Compute(tail.AsSpan(0, runsSize)),
                Digest.Compute(checksums));
            file.Append(tail);
            return root;

            void WriteWindow()
            {
                cancellationToken.ThrowIfCancellationRequested();
                int length = filled << PageSize.Shift;
                ChunkHashing hashing = ChunkHashing.Begin(window.AsMemory(0, length), checksums.AsMemory(chunks * Digest.SizeInBytes));
                try
                {
                    // The disk has it while it is hashed.
                    file.Append(window.AsSpan(0, length));
                    file.WriteBack(isAwaited: false);
                }
                finally
                {
                    hashing.Complete();
                }

                chunks += LayerFormat.Chunks(filled);
                filled = 0;
                onBytes(length);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(window);
        }
    }

    /// <summary>Reads all of a layer file but its pages, and checks it.</summary>
    /// <param name="file">The file.</param>
    /// <exception cref="FileDamageException">It is not as it was written.</exception>
    internal static LayerContents ReadContents(StoredFile file)
    {
        using SpanOwner<byte> owner = SpanOwner<byte>.Allocate(LayerFormat.HeaderSize);
        Span<byte> buffer = owner.Span;
        long length = file.Stat().Length;
        if (length < LayerFormat.HeaderSize + LayerFormat.FooterSize)
        {
            throw FileDamageException.Damaged($"has {length} bytes, fewer than any layer file");
        }

        file.Read(buffer, offset: 0);
        LayerHeader header = LayerFormat.ReadHeader(buffer);
        Digest headerDigest = Digest.Compute(buffer);
        long expected = LayerFormat.Length(header.StoredPages, header.Runs);
        if (length != expected)
        {
            throw FileDamageException.Damaged($"has {length} bytes instead of {expected}");
        }

        // The length is that of a file which is there, so the sizes below are no larger than that.
        long position = LayerFormat.ContentEnd(header.StoredPages);
        byte[] runs = new byte[header.Runs * LayerFormat.RunSize];
        byte[] checksums = new byte[LayerFormat.Chunks(header.StoredPages) * Digest.SizeInBytes];
        file.Read(runs, position);
        file.Read(checksums, position + runs.Length);
        Span<byte> footer = buffer[..LayerFormat.FooterSize];
        file.Read(footer, position + runs.Length + checksums.Length);

        Span<byte> expectedFooter = stackalloc byte[LayerFormat.FooterSize];
        Digest root = LayerFormat.WriteFooter(expectedFooter, length, headerDigest, Digest.Compute(runs), Digest.Compute(checksums));
        if (!footer.SequenceEqual(expectedFooter))
        {
            throw FileDamageException.Damaged("has a header, a page index or checksums that do not match its footer");
        }

        return new LayerContents(header, LayerFormat.ReadIndex(runs, header), checksums, root);
    }

    /// <summary>Checks the pages of a layer file.</summary>
    /// <param name="file">The file.</param>
    /// <param name="contents">What it holds.</param>
    /// <param name="onBytes">Told of each part of the memory that is done.</param>
    /// <param name="cancellationToken">Cancels the checking.</param>
    /// <exception cref="FileDamageException">They are not as they were written.</exception>
    internal static void VerifyPages(StoredFile file, LayerContents contents, Action<long> onBytes, CancellationToken cancellationToken)
    {
        using SpanOwner<byte> owner = SpanOwner<byte>.Allocate(LayerFormat.ChunkSize);
        int stored = contents.Header.StoredPages;
        for (int chunk = 0; chunk < LayerFormat.Chunks(stored); chunk++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            int first = chunk * LayerFormat.ChunkPages;
            int pages = Math.Min(LayerFormat.ChunkPages, stored - first);
            Span<byte> content = owner.Span[..(pages << PageSize.Shift)];
            file.Read(content, LayerFormat.ContentEnd(first));
            if (Digest.Compute(content) != Digest.Read(contents.Checksums.AsSpan(chunk * Digest.SizeInBytes)))
            {
                throw FileDamageException.Damaged(
                    $"has pages that do not match their checksum, in the {content.Length} bytes from byte {LayerFormat.ContentEnd(first)}");
            }

            onBytes(content.Length);
        }
    }
}

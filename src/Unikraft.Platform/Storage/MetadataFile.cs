namespace Unikraft.Platform.Storage;

/// <summary>What was read from a metadata file.</summary>
/// <param name="Frames">The changes of each frame, in order.</param>
/// <param name="Root">The checksum of everything that was read: the base of what follows.</param>
/// <param name="LastSequence">The number of the last frame.</param>
/// <param name="ServiceTime">The time of the last frame, in units of 100 ns; 0 when there is none.</param>
/// <param name="Length">The bytes that hold frames. What follows in a journal was being written when the host or the process ended.</param>
/// <param name="Damage">What is damaged and could be set apart, in words; empty for a sound file.</param>
internal sealed record MetadataFile(
    IReadOnlyList<IReadOnlyList<StateChange>> Frames,
    Checksum Root,
    long LastSequence,
    long ServiceTime,
    long Length,
    IReadOnlyList<string> Damage)
{
    private const int SectorSize = 512;

    /// <summary>Reads a snapshot, which is complete.</summary>
    /// <exception cref="MetadataDamageException">It is not as it was written, and nobody can tell what has become of whom.</exception>
    internal static MetadataFile ReadSnapshot(ReadOnlyMemory<byte> content, long generation)
    {
        MetadataHeader header = MetadataFormat.DecodeHeader(content.Span);
        Require(header.IsSnapshot && header.Generation == generation, "is not the file that should be there");
        (MetadataFile file, FrameHeader? last) = ReadFrames(content, sequence: 0, Checksum.Of(content.Span[..MetadataFormat.HeaderSize]));
        Require(file.Length == content.Length && last is { Flags: MetadataFormat.IsLast }, "does not end where it should");
        return file with { LastSequence = header.Sequence };
    }

    /// <summary>Reads a journal as far as it was written.</summary>
    /// <param name="content">The file.</param>
    /// <param name="generation">The generation that it is of.</param>
    /// <param name="sequence">The number of the last change that its snapshot has.</param>
    /// <param name="snapshot">The root of that snapshot.</param>
    /// <param name="endsAtHole">Whether it ends at what is lost, with damage, although frames follow: without syncs the host writes them in any order.</param>
    /// <exception cref="MetadataDamageException">It is not as it was written, and nobody can tell what has become of whom.</exception>
    internal static MetadataFile ReadJournal(ReadOnlyMemory<byte> content, long generation, long sequence, Checksum snapshot, bool endsAtHole = false)
    {
        List<string> damage = [];
        try
        {
            MetadataHeader header = MetadataFormat.DecodeHeader(content.Span);
            if (header.IsSnapshot || header.Generation != generation || header.Sequence != sequence || header.Base != snapshot)
            {
                throw new MetadataDamageException("is not the file that should be there");
            }
        }
        catch (MetadataDamageException error) when (content.Length >= MetadataFormat.HeaderSize)
        {
            // All that it says is known; the frames prove for themselves that they are the right ones.
            damage.Add(error.Message);
        }

        (MetadataFile file, _) = ReadFrames(content, sequence, snapshot, endsAtHole);
        // A header alone proves nothing: a journal that is another one has to fail here.
        Require(damage.Count == 0 || file.Frames.Count > 0 || IsZero(content.Span[MetadataFormat.HeaderSize..]), damage.FirstOrDefault() ?? "");
        return file with { Damage = [.. damage, .. file.Damage] };
    }

    private static void Require(bool isMet, string message)
    {
        if (!isMet)
        {
            throw new MetadataDamageException(message);
        }
    }

    private static (MetadataFile File, FrameHeader? Last) ReadFrames(ReadOnlyMemory<byte> content, long sequence, Checksum start, bool endsAtHole = false)
    {
        List<IReadOnlyList<StateChange>> frames = [];
        List<string> damage = [];
        Checksum chain = start;
        FrameHeader? last = null;
        int offset = MetadataFormat.HeaderSize;
        while (offset < content.Length)
        {
            ReadOnlyMemory<byte> rest = content[offset..];
            FrameHeader? header = MetadataFormat.TryReadFrameHeader(rest.Span);
            bool isSound = header is not null && header.Sequence == sequence + 1 && header.Length <= rest.Length;
            if (!isSound)
            {
                header = FindTrailer(rest.Span, sequence + 1);
            }

            if (header is null)
            {
                // The end, or a frame that was being written, unless frames follow.
                EndAt(offset, HasFrames(rest.Span, sequence + 1));
                break;
            }

            ReadOnlyMemory<byte> body = rest.Slice(MetadataFormat.FrameHeaderSize, header.BodySize);
            ReadOnlySpan<byte> trailer = rest.Span[(MetadataFormat.FrameHeaderSize + header.BodySize)..];
            Checksum written = Checksum.Read(trailer);
            bool hasTrailer = MetadataFormat.TryReadFrameHeader(trailer[Checksum.Size..], isTrailer: true) == header;
            Checksum computed = MetadataFormat.ChainOf(chain, isSound ? rest.Span : HeaderOf(header), body.Span);
            if ((computed != written || !hasTrailer || !isSound) && IsTorn(content.Span, offset, header, isGuess: computed != written && !hasTrailer))
            {
                EndAt(offset, HasFrames(rest.Span[header.Length..], header.Sequence));
                break;
            }

            if (!isSound || !hasTrailer || computed != written)
            {
                damage.Add($"is damaged in the frame at byte {offset}");
            }

            frames.Add(MetadataFormat.DecodeChanges(body, header.Changes, computed == written));
            // What follows was chained to what had been computed when it was written.
            chain = computed == written ? computed : ChainBefore(rest.Span[header.Length..], written, computed);
            sequence = header.Sequence;
            last = header;
            offset += header.Length;
        }

        return (new MetadataFile(frames, chain, sequence, last?.ServiceTime ?? 0, offset, damage), last);

        void EndAt(int position, bool isFollowed)
        {
            string what = $"is damaged at byte {position}, and what was written there is lost";
            Require(!isFollowed || endsAtHole, what);
            if (isFollowed)
            {
                damage.Add($"{what}, with all changes after it");
            }
        }
    }

    // The checksum that the next frame was chained to: that which is written, unless the damage is in there.
    private static Checksum ChainBefore(ReadOnlySpan<byte> next, Checksum written, Checksum computed)
    {
        if (MetadataFormat.TryReadFrameHeader(next) is { } header && header.Length <= next.Length)
        {
            ReadOnlySpan<byte> body = next.Slice(MetadataFormat.FrameHeaderSize, header.BodySize);
            if (MetadataFormat.ChainOf(computed, next, body) == Checksum.Read(next[(MetadataFormat.FrameHeaderSize + header.BodySize)..]))
            {
                return computed;
            }
        }

        return written;
    }

    private static byte[] HeaderOf(FrameHeader header)
    {
        Checksum ignored = default;
        byte[] bytes = MetadataFormat.EncodeFrame(header.Sequence, header.ServiceTime, [], header.Flags, ref ignored);
        System.Buffers.Binary.BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(4), header.BodySize);
        System.Buffers.Binary.BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(24), header.Changes);
        return bytes[..MetadataFormat.FrameHeaderSize];
    }

    /// <summary>Finds the end of a frame whose beginning is damaged: both say the same.</summary>
    private static FrameHeader? FindTrailer(ReadOnlySpan<byte> rest, long sequence)
    {
        int first = MetadataFormat.FrameHeaderSize + Checksum.Size;
        for (int offset = first; offset <= rest.Length - MetadataFormat.FrameHeaderSize; offset++)
        {
            if (rest[offset] == 'K' && MetadataFormat.TryReadFrameHeader(rest[offset..], isTrailer: true) is { } header
                && header.Sequence == sequence && header.BodySize == offset - first)
            {
                return header;
            }
        }

        return null;
    }

    /// <summary>Whether a frame was not completely written: a disk writes sectors whole, and before a journal is written to it is zero.</summary>
    private static bool IsTorn(ReadOnlySpan<byte> content, int offset, FrameHeader header, bool isGuess)
    {
        int end = offset + header.Length;
        for (int start = offset; start < end;)
        {
            int next = Math.Min(end, (start / SectorSize * SectorSize) + SectorSize);
            if (IsZero(content[start..next]))
            {
                return true;
            }

            start = next;
        }

        return isGuess;
    }

    private static bool HasFrames(ReadOnlySpan<byte> rest, long sequence)
    {
        for (int offset = 0; offset <= rest.Length - MetadataFormat.FrameHeaderSize; offset++)
        {
            int next = rest[offset..].IndexOf((byte)'K');
            if (next < 0)
            {
                return false;
            }

            offset += next;
            if (MetadataFormat.TryReadFrameHeader(rest[offset..]) is { } header && header.Sequence > sequence)
            {
                return true;
            }
        }

        return false;
    }

    private static bool IsZero(ReadOnlySpan<byte> bytes) => !bytes.ContainsAnyExcept((byte)0);
}

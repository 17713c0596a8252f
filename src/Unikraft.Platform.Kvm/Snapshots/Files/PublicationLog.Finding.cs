using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <content>What a platform before has left in it.</content>
internal sealed partial class PublicationLog
{
    // So many pages are read at a time.
    private const int WindowSize = 64 * PageSize.Bytes;

    /// <summary>What was not released. A record that was being written when the host ended is not part of it. Of a file that was cut off, what is there.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal LogContents Read(CancellationToken cancellationToken)
    {
        List<PendingSnapshot> sound = [];
        List<DamagedRecord> damaged = [];
        DamagedRecord? doubtful = null;
        bool isReadable = true;

        // Damage is looked past in a fraction of that; somebody's forgery must not keep a directory from opening for hours.
        long budget = 4 * _present;
        byte[] block = new byte[LogFormat.Block];
        List<LayerHeader> layers = [];
        (long sequence, long offset) = (_header.Sequence, _header.Offset);
        while (true)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (offset >= _present)
            {
                // Of what was cut off nothing is known: the next record, if there is one, is anywhere before.
                offset = Damage is null ? LogFormat.RecordsStart : _present - LogFormat.Block;
            }

            if (TryReadRecord(block, sequence, offset, layers, ref isReadable) is not { } header)
            {
                if (FindNext(sequence, offset, ref budget, ref isReadable, cancellationToken) is not { } next)
                {
                    // If the one before is not whole, it was the last, and being written. Unless the rest of it was cut off.
                    if (doubtful is not null && Damage is not null)
                    {
                        damaged.Add(doubtful);
                    }

                    return new LogContents(sound, damaged, isReadable);
                }

                // Between a record and one at the beginning of the file there may be a mark, of which nothing is missed.
                if (doubtful is not null || next != (sequence + 1, LogFormat.RecordsStart))
                {
                    damaged.Add(doubtful ?? new DamagedRecord(Guid.Empty, []));
                }

                doubtful = null;
                (sequence, offset) = next;
                continue;
            }

            if (doubtful is not null)
            {
                damaged.Add(doubtful);
                doubtful = null;
            }

            if (header.StateLength > 0)
            {
                try
                {
                    sound.Add(Decode(block, header, offset, layers, cancellationToken));
                }
                catch (Exception error) when (error is FileDamageException or StorageException)
                {
                    isReadable &= error is FileDamageException;
                    doubtful = new DamagedRecord(header.Snapshot, [.. layers.Select(static layer => layer.Id)]);
                }
            }

            sequence++;
            offset = header.StateLength > 0 ? offset + header.Length : LogFormat.RecordsStart;
        }
    }

    private RecordHeader? TryReadRecord(byte[] block, long sequence, long offset, List<LayerHeader> layers, ref bool isReadable)
    {
        try
        {
            _reader.Read(block, offset);
            return LogFormat.TryReadRecord(block, _header, sequence, offset, layers);
        }
        catch (StorageException)
        {
            isReadable = false;
            return null;
        }
    }

    /// <summary>The record that follows one whose beginning cannot be read, and so not its length either.</summary>
    private (long Sequence, long Offset)? FindNext(
        long sequence,
        long offset,
        ref long budget,
        ref bool isReadable,
        CancellationToken cancellationToken)
    {
        byte[] window = new byte[WindowSize];
        long searched = offset + LogFormat.Block;

        // Each record takes a block at least.
        long last = _header.Sequence + (_header.Length / LogFormat.Block);
        for (long left = Math.Min(budget, _present - LogFormat.RecordsStart); left > 0;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            searched = searched >= _present ? LogFormat.RecordsStart : searched;
            Span<byte> part = window.AsSpan(0, (int)Math.Min(Math.Min(WindowSize, left), _present - searched));
            try
            {
                _reader.Read(part, searched);
                for (int start = 0; start < part.Length; start += LogFormat.Block)
                {
                    if (LogFormat.SequenceOf(part.Slice(start, LogFormat.Block), _header.Log) is { } found && found > sequence && found <= last)
                    {
                        budget -= start + LogFormat.Block;
                        return (found, searched + start);
                    }
                }
            }
            catch (StorageException)
            {
                isReadable = false;
            }

            searched += part.Length;
            left -= part.Length;
            budget -= part.Length;
        }

        return null;
    }

    /// <exception cref="FileDamageException">It is not as it was written.</exception>
    /// <exception cref="StorageException">The host refused.</exception>
    private PendingSnapshot Decode(byte[] block, in RecordHeader header, long offset, List<LayerHeader> layers, CancellationToken cancellationToken)
    {
        if (header.Length > _present - offset)
        {
            throw FileDamageException.Damaged($"has {_present - offset} of the {header.Length} bytes of the record from byte {offset}");
        }

        long pages = layers.Sum(static layer => (long)layer.StoredPages);
        byte[] body = new byte[header.Length - LogFormat.Block - (pages << PageSize.Shift)];
        RecordChecksum checksum = default;
        _reader.Read(body, offset + LogFormat.Block);
        checksum.Add(body);
        byte[] window = new byte[WindowSize];
        long end = offset + header.Length;
        for (long position = end - (pages << PageSize.Shift); position < end;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Span<byte> part = window.AsSpan(0, (int)Math.Min(WindowSize, end - position));
            _reader.Read(part, position);
            checksum.Add(part);
            position += part.Length;
        }

        if (!checksum.Is(LogFormat.BodyChecksumOf(block)))
        {
            throw FileDamageException.Damaged($"has a record that does not match its checksum, in the {header.Length} bytes from byte {offset}");
        }

        List<LoggedLayer> logged = [];
        int read = 0;
        long content = end - (pages << PageSize.Shift);
        foreach (LayerHeader layer in layers)
        {
            int size = layer.Runs * LayerFormat.RunSize;
            logged.Add(new LoggedLayer(layer, LayerFormat.ReadIndex(body.AsSpan(read, size), layer), content));
            read += size;
            content += (long)layer.StoredPages << PageSize.Shift;
        }

        Span<byte> encoded = body.AsSpan(read, header.StateLength);
        if (encoded.Length > Digest.SizeInBytes)
        {
            // The record is sealed as a whole.
            StateFile.Seal(encoded);
        }

        SnapshotState state = StateFile.Decode(encoded);
        return state.Id == header.Snapshot
            ? new PendingSnapshot(new LogRecord(header.Sequence, offset, header.Length, header.Snapshot, logged, checksum), state)
            : throw new FileDamageException(SnapshotFileError.Mismatched, $"holds the snapshot {state.Id:D} in the place of {header.Snapshot:D}");
    }
}

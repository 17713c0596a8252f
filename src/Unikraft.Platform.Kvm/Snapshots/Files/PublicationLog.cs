using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>
/// A file that is written ahead and over again: a snapshot is in it with one write and one sync, for which the file system has nothing to change but a time. From here it gets
/// files of its own later.
/// </summary>
/// <remarks>One may append and one other release at a time.</remarks>
internal sealed partial class PublicationLog : IDisposable
{
    // So much of a log is made at a time: others who wait for the disk do not wait for all of it.
    private const int MadeAtOnce = 1 << 20;

    // Beyond that the bytes themselves take the time, however long the log.
    private const long LongestRecord = 8 << 20;
    private const string Temporary = LogFormat.Name + FileStore.TemporarySuffix;

    private readonly FileStore _store;
    private readonly StoredFile _file;
    private readonly StoredFile _reader;
    private readonly Lock _lock = new();
    private readonly StagingBuffer _block = new(1);
    private readonly StagingBuffer _mark = new(1);

    /// <summary>So much of it is there: all of it, unless somebody has cut the file off.</summary>
    private readonly long _present;
    private StagingBuffer? _record;
    private StagingBuffer? _read;
    private LogHeader _header;
    private long _next;
    private long _end;
    private bool _isClosed;

    private PublicationLog(FileStore store, StoredFile file, StoredFile reader, LogHeader header, long fileLength)
    {
        (_store, _file, _reader, _header) = (store, file, reader, header);
        (_next, _end) = (header.Sequence, header.Offset);
        _present = Math.Min(header.Length, LogFormat.WholeBlocks(fileLength));
    }

    /// <summary>Whether nothing is appended any more: it was there when the directory was opened, or a write failed and nobody knows what of it is on the disk.</summary>
    internal bool IsClosed
    {
        get
        {
            lock (_lock)
            {
                return _isClosed;
            }
        }
    }

    /// <summary>The longest record that is worth it: beyond that the bytes themselves take the time.</summary>
    internal long MaxLength => Math.Min(_header.Length / 4, LongestRecord);

    /// <summary>The length of the file.</summary>
    internal long Length => _header.Length;

    /// <summary>How the file is damaged as a whole, records apart; <see langword="null"/> when it is not.</summary>
    internal FileDamageException? Damage =>
        _present < _header.Length ? FileDamageException.Damaged($"is cut off: {_present} of its {_header.Length} bytes are there") : null;

    /// <summary>With so much in use, room is made although somebody may need the disk: before that a burst has it to itself.</summary>
    internal long FillMark => _header.Length / 4 * 3;

    /// <summary>The number of the first record that was not released.</summary>
    internal long FirstNeeded
    {
        get
        {
            lock (_lock)
            {
                return _header.Sequence;
            }
        }
    }

    /// <summary>Whether so much of it is in use that room should be made before somebody waits for it.</summary>
    internal bool IsFilling
    {
        get
        {
            lock (_lock)
            {
                long used = _end - _header.Offset;
                return (used < 0 || (used == 0 && _next > _header.Sequence) ? used + _header.Length : used) >= FillMark;
            }
        }
    }

    /// <summary>Makes a log, in the place of one that is not needed any more.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused. Nothing remains.</exception>
    internal static PublicationLog Make(FileStore store, long length, CancellationToken cancellationToken) =>
        Place(store, Prepare(store, length, cancellationToken));

    /// <summary>Writes a log under another name, where it is of no use yet and keeps nobody from using the one that is there.</summary>
    /// <returns>What <see cref="Place"/> needs.</returns>
    /// <exception cref="StorageException">The disk is full, or the host refused. Nothing remains.</exception>
    internal static LogHeader Prepare(FileStore store, long length, CancellationToken cancellationToken)
    {
        LogHeader header = new(Guid.NewGuid(), Count: 0, Sequence: 1, LogFormat.RecordsStart, length);
        using StagingBuffer zeroes = StagingBuffer.ForDisk((int)(Math.Min(MadeAtOnce, length) / LogFormat.Block));
        try
        {
            store.Create(Temporary).Dispose();

            // What the host's cache had of it would have to be dropped by whoever writes over it first.
            using StoredFile file = store.TryOpenDirect(Temporary)
                ?? throw new StorageException(store.PathOf(Temporary), $"The file '{store.PathOf(Temporary)}' is gone that was just made.");
            LogFormat.WriteHeader(zeroes.Slice(0, 1), header);
            file.Append(zeroes.Slice(0, 1));
            zeroes.Slice(0, 1).Clear();
            while (file.Written < length)
            {
                cancellationToken.ThrowIfCancellationRequested();
                file.Append(zeroes.Slice(0, (int)(Math.Min(MadeAtOnce, length - file.Written) / LogFormat.Block)));
            }

            file.Sync();
            return header;
        }
        catch
        {
            DeletePrepared(store);
            throw;
        }
    }

    /// <summary>Puts a log that was prepared in the place of one of which everything was released, and opens it.</summary>
    /// <exception cref="StorageException">The host refused. Neither remains.</exception>
    internal static PublicationLog Place(FileStore store, LogHeader header)
    {
        try
        {
            store.Rename(Temporary, LogFormat.Name);
            store.Sync();
            PublicationLog log = Open(store, header)
                ?? throw new StorageException(store.PathOf(LogFormat.Name), $"The file '{store.PathOf(LogFormat.Name)}' is gone that was just written.");
            try
            {
                // There are file systems that open a file past the page cache and then refuse to write blocks of this size.
                log.Write(header with { Count = 1 });
            }
            catch
            {
                log.Dispose();
                throw;
            }

            return log;
        }
        catch
        {
            store.DeleteIfPossible(LogFormat.Name);
            DeletePrepared(store);
            throw;
        }
    }

    /// <summary>Removes a log that was prepared and is not needed.</summary>
    internal static void DeletePrepared(FileStore store) => store.DeleteIfPossible(Temporary);

    /// <summary>Opens the log that a platform before has left, to read and release what is in it.</summary>
    /// <returns><see langword="null"/> when there is none.</returns>
    /// <exception cref="FileDamageException">It is not as it was written.</exception>
    internal static PublicationLog? TryOpen(FileStore store)
    {
        using StoredFile? file = store.TryOpen(LogFormat.Name);
        if (file is not null)
        {
            long length = file.Stat().Length;
            byte[] block = new byte[LogFormat.Block];
            LogHeader? newest = null;
            StorageException? unreadable = null;
            for (int place = 0; place < 2 && length >= LogFormat.RecordsStart; place++)
            {
                try
                {
                    file.Read(block, place * LogFormat.Block);
                }
                catch (StorageException error) when (StoredFile.IsUnreadable(error))
                {
                    // The other one is as good as when this is damaged.
                    unreadable = error;
                    continue;
                }

                if (LogFormat.TryReadHeader(block) is { } header && (newest is null || header.Count > newest.Value.Count))
                {
                    newest = header;
                }
            }

            PublicationLog? log = Open(store, newest ?? throw (unreadable as Exception ?? FileDamageException.Damaged("has no header that can be read")));
            log?.Close();
            return log;
        }

        return null;
    }

    private static PublicationLog? Open(FileStore store, LogHeader header)
    {
        StoredFile? reader = store.TryOpen(LogFormat.Name);
        try
        {
            long length = reader?.Stat().Length ?? 0;
            StoredFile? file = reader is null ? null : store.TryOpenDirect(LogFormat.Name);
            if (file is not null)
            {
                PublicationLog log = new(store, file, reader!, header, length);
                reader = null;
                return log;
            }

            return null;
        }
        finally
        {
            reader?.Dispose();
        }
    }

    /// <summary>Appends a snapshot. When this returns it is on the disk.</summary>
    /// <param name="layers">The layers that come with it.</param>
    /// <param name="state">Its state.</param>
    /// <param name="onBytes">Told of each part of the memory that is done.</param>
    /// <param name="cancellationToken">Cancels the writing.</param>
    /// <returns><see langword="null"/> when there is no room.</returns>
    /// <exception cref="StorageException">The host refused. Nothing can be appended any more.</exception>
    internal LogRecord? TryAppend(
        IReadOnlyList<(MemoryLayer Layer, PageIndex Index)> layers,
        SnapshotState state,
        Action<long> onBytes,
        CancellationToken cancellationToken)
    {
        int stateLength = StateFile.LengthOf(state);
        long length = LogFormat.LengthOf(layers.Select(static layer => layer.Index), stateLength);
        if (length > MaxLength || TryPlace(length) is not { } place)
        {
            return null;
        }

        int blocks = (int)(length / LogFormat.Block);
        int headLength = (int)(length - layers.Sum(static layer => (long)layer.Index.StoredPages << PageSize.Shift));
        Span<byte> record = Fit(ref _record, blocks).Slice(0, blocks);
        List<LoggedLayer> logged = Encode(record, headLength, place.Offset, layers, state, out RecordChecksum body, onBytes, cancellationToken);
        LogFormat.WriteRecord(
            record[..LogFormat.Block],
            new RecordHeader(_header.Log, place.Sequence, length, state.Id, stateLength, body),
            [.. logged.Select(static layer => layer.Header)]);
        cancellationToken.ThrowIfCancellationRequested();
        try
        {
            _file.Write(record, place.Offset);
            _file.SyncData();
        }
        catch
        {
            Close();
            throw;
        }

        lock (_lock)
        {
            (_next, _end) = (place.Sequence + 1, place.Offset + length);
        }

        return new LogRecord(place.Sequence, place.Offset, length, state.Id, logged, body);
    }

    /// <summary>Writes all of a record but its first block to memory.</summary>
    private static List<LoggedLayer> Encode(
        Span<byte> record,
        int headLength,
        long offset,
        IReadOnlyList<(MemoryLayer Layer, PageIndex Index)> layers,
        SnapshotState state,
        out RecordChecksum body,
        Action<long> onBytes,
        CancellationToken cancellationToken)
    {
        int guestPages = (int)(state.Layout.MemorySize >> PageSize.Shift);
        List<LoggedLayer> logged = [];
        Span<byte> head = record[LogFormat.Block..headLength];
        Span<byte> rest = head;
        long content = offset + headLength;
        foreach ((MemoryLayer layer, PageIndex index) in layers)
        {
            logged.Add(new LoggedLayer(new LayerHeader(layer.Id, guestPages, index.StoredPages, index.Runs.Length), index, content));
            content += (long)index.StoredPages << PageSize.Shift;
            LayerFormat.WriteIndex(rest, index);
            rest = rest[(index.Runs.Length * LayerFormat.RunSize)..];
        }

        rest.Clear();
        StateFile.Write(rest[..StateFile.LengthOf(state)], state);
        body = default;
        body.Add(head);
        rest = record[headLength..];
        foreach ((MemoryLayer layer, PageIndex index) in layers)
        {
            cancellationToken.ThrowIfCancellationRequested();
            foreach (PageRun run in index.Runs)
            {
                Span<byte> pages = rest[..(run.Length << PageSize.Shift)];
                layer.Read(pages, (long)run.Start << PageSize.Shift);
                body.Add(pages);
                rest = rest[pages.Length..];
            }

            onBytes((long)index.StoredPages << PageSize.Shift);
        }

        return logged;
    }

    /// <summary>Reads a whole record. What of it is on the disk may have changed since it was written, or found when the log was opened.</summary>
    /// <param name="record">The record.</param>
    /// <returns>The record, until the next one is read.</returns>
    /// <exception cref="FileDamageException">It is not as it was written.</exception>
    /// <exception cref="StorageException">The host refused.</exception>
    internal StagingBuffer Read(LogRecord record)
    {
        int blocks = (int)(record.Length / LogFormat.Block);
        StagingBuffer buffer = Fit(ref _read, blocks);
        Span<byte> content = buffer.Slice(0, blocks);
        _file.Read(content, record.Offset);
        RecordChecksum checksum = default;
        checksum.Add(content[LogFormat.Block..]);
        return checksum.Equals(record.Body)
            ? buffer
            : throw FileDamageException.Damaged($"has a record that does not match its checksum, in the {record.Length} bytes from byte {record.Offset}");
    }

    private static StagingBuffer Fit(ref StagingBuffer? buffer, int blocks)
    {
        if (buffer is null || buffer.Capacity < blocks)
        {
            // With room for a next one that is a little larger.
            buffer?.Dispose();
            buffer = StagingBuffer.ForDisk(blocks + blocks / 2);
        }

        return buffer;
    }

    /// <summary>The records up to one are not needed any more. When this returns, the next start does not find them.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal void Release(LogRecord last)
    {
        LogHeader next;
        lock (_lock)
        {
            next = _header with { Count = _header.Count + 1, Sequence = last.Sequence + 1, Offset = last.Offset + last.Length };
        }

        Write(next);
    }

    private void Write(LogHeader next)
    {
        Span<byte> block = _block.Slice(0, 1);
        LogFormat.WriteHeader(block, next);
        try
        {
            _file.Write(block, next.Count % 2 * LogFormat.Block);
            _file.SyncData();
        }
        catch
        {
            Close();
            throw;
        }

        lock (_lock)
        {
            _header = next;
        }
    }

    /// <summary>Nothing is appended any more.</summary>
    internal void Close()
    {
        lock (_lock)
        {
            _isClosed = true;
        }
    }

    /// <summary>Removes the file, of which everything was released.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal void Delete()
    {
        Close();
        _store.Delete(LogFormat.Name);
    }

    public void Dispose()
    {
        _file.Dispose();
        _reader.Dispose();
        _block.Dispose();
        _mark.Dispose();
        _record?.Dispose();
        _read?.Dispose();
    }

    /// <returns>Where a record goes and under which number; <see langword="null"/> when there is no room.</returns>
    private (long Offset, long Sequence)? TryPlace(long length)
    {
        long end;
        long sequence;
        lock (_lock)
        {
            if (_isClosed)
            {
                return null;
            }

            long start = _header.Offset;
            bool isWrapped = _next > _header.Sequence && _end <= start;
            long room = isWrapped ? start - _end : _header.Length - _end;
            if (length <= room)
            {
                return (_end, _next);
            }

            if (isWrapped || length > start - LogFormat.RecordsStart)
            {
                return null;
            }

            (end, sequence) = (_end, _next);
        }

        // A mark takes whoever reads it to the beginning of the file. It goes to the disk with the record.
        if (end < _header.Length)
        {
            Span<byte> block = _mark.Slice(0, 1);
            LogFormat.WriteRecord(block, new RecordHeader(_header.Log, sequence, LogFormat.Block, default, StateLength: 0, default), []);
            try
            {
                _file.Write(block, end);
            }
            catch
            {
                Close();
                throw;
            }

            sequence++;
        }

        return (LogFormat.RecordsStart, sequence);
    }
}

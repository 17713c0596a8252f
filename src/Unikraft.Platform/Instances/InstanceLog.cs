namespace Unikraft.Platform.Instances;

/// <summary>The last bytes that an instance wrote to its console, at absolute offsets. Survives stops and starts.</summary>
/// <remarks>
/// <see cref="Append"/> is called by vCPU threads. It allocates only while the ring still grows, and the lock is never held for longer than
/// it takes to copy one chunk: readers copy chunk by chunk and start over with what is left when the writer has overtaken them.
/// </remarks>
internal sealed class InstanceLog(int capacity)
{
    /// <summary>The most that is copied at a time.</summary>
    public const int ChunkSize = 4096;

    private readonly Lock _lock = new();
    private byte[] _ring = [];
    private long _end;
    private long _floor;
    private bool _completed;
    private TaskCompletionSource? _written;

    public long End
    {
        get
        {
            lock (_lock)
            {
                return _end;
            }
        }
    }

    private long Start => Math.Max(_floor, _end - _ring.Length);

    public void Append(ReadOnlySpan<byte> output)
    {
        if (output.IsEmpty)
        {
            return;
        }

        TaskCompletionSource? written;
        lock (_lock)
        {
            if (_ring.Length < capacity && _end + output.Length > _ring.Length)
            {
                Grow(_end + output.Length);
            }

            // Of more than the ring holds only the end remains.
            int dropped = Math.Max(0, output.Length - _ring.Length);
            _end += dropped;
            ReadOnlySpan<byte> kept = output[dropped..];
            int position = (int)(_end % _ring.Length);
            int first = Math.Min(kept.Length, _ring.Length - position);
            kept[..first].CopyTo(_ring.AsSpan(position));
            kept[first..].CopyTo(_ring);
            _end += kept.Length;
            written = _written;
            _written = null;
        }

        written?.TrySetResult();
    }

    /// <summary>Appends what was kept in a file, at its own offset: what is missing before it is not available any more.</summary>
    public void Restore(long offset, ReadOnlySpan<byte> output)
    {
        lock (_lock)
        {
            if (offset != _end)
            {
                // Positions in a ring that still grows are offsets.
                _ring = _ring.Length < capacity ? new byte[capacity] : _ring;
                (_floor, _end) = (offset, offset);
            }
        }

        Append(output);
    }

    /// <summary>Copies up to <see cref="ChunkSize"/> bytes from an offset, or from the oldest byte kept if that is newer.</summary>
    /// <param name="offset">Moved behind what was copied.</param>
    /// <param name="destination">Where to.</param>
    /// <returns>How many bytes; 0 at the end of the log.</returns>
    public int Read(ref long offset, Span<byte> destination)
    {
        lock (_lock)
        {
            offset = Math.Max(offset, Start);
            int length = (int)Math.Min(Math.Min(destination.Length, ChunkSize), Math.Max(0, _end - offset));
            if (length == 0)
            {
                return 0;
            }

            int position = (int)(offset % _ring.Length);
            int first = Math.Min(length, _ring.Length - position);
            _ring.AsSpan(position, first).CopyTo(destination);
            _ring.AsSpan(0, length - first).CopyTo(destination[first..]);
            offset += length;
            return length;
        }
    }

    /// <exception cref="InvalidRequestException">The limit is negative.</exception>
    public static void Require(LogRange? range)
    {
        if (range?.Limit < 0)
        {
            throw new InvalidRequestException($"The limit {range.Limit} of a log range is negative.");
        }
    }

    /// <summary>Reads a part of the log.</summary>
    /// <exception cref="InvalidRequestException">The limit is negative.</exception>
    public LogOutput Read(LogRange? range)
    {
        Require(range);

        long availableStart, availableEnd;
        lock (_lock)
        {
            (availableStart, availableEnd) = (Start, _end);
        }

        long wanted = range switch
        {
            null => 0,
            { Offset: < 0 } => availableEnd + range.Offset,
            _ => range.Offset,
        };
        long start = Math.Clamp(wanted, availableStart, availableEnd);
        long end = Math.Min(availableEnd, start + (range?.Limit ?? availableEnd));
        byte[] output = new byte[end - start];
        long offset = start;
        int length = 0;
        while (offset < end)
        {
            long expected = offset;
            int read = Read(ref offset, output.AsSpan(length, (int)Math.Min(ChunkSize, end - offset)));
            long actual = offset - read;
            if (actual != expected)
            {
                // Overwritten meanwhile: what was copied so far is no longer connected to what follows.
                output.AsSpan(length, read).CopyTo(output);
                length = 0;
                start = availableStart = Math.Min(actual, availableEnd);
                read = (int)Math.Clamp(end - actual, 0, read);
            }

            length += read;
        }

        return new LogOutput(output.AsMemory(0, length), start, availableStart, availableEnd);
    }

    /// <summary>Waits until there is something behind an offset.</summary>
    /// <returns>False when nothing will ever be, because the instance is gone.</returns>
    public async ValueTask<bool> WaitAsync(long offset, CancellationToken cancellationToken)
    {
        while (true)
        {
            Task written;
            lock (_lock)
            {
                if (_end > offset)
                {
                    return true;
                }

                if (_completed)
                {
                    return false;
                }

                _written ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                written = _written.Task;
            }

            await written.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Says that nothing will be appended any more.</summary>
    public void Complete()
    {
        TaskCompletionSource? written;
        lock (_lock)
        {
            _completed = true;
            written = _written;
            _written = null;
        }

        written?.TrySetResult();
    }

    private void Grow(long needed)
    {
        // Nothing has wrapped round before the ring has its full size, so that offsets and positions are the same.
        long doubled = Math.Max(Math.Max(needed, ChunkSize), 2L * _ring.Length);
        byte[] larger = new byte[Math.Min(capacity, doubled)];
        _ring.AsSpan(0, (int)_end).CopyTo(larger);
        _ring = larger;
    }
}

namespace Unikraft.Platform.Volumes.Tests.Testing;

/// <summary>A file whose power can be cut: it knows what is durable and what was written since, in sectors that a disk writes as a whole.</summary>
internal sealed class PowerCutFile : IImageFile
{
    private const int Sector = 512;

    private readonly MemoryImageFile _live;
    private readonly MemoryImageFile _durable;
    private readonly List<(long Offset, byte[] Data)> _pending = [];

    internal PowerCutFile(MemoryImageFile contents)
    {
        _live = contents.Copy();
        _durable = contents.Copy();
    }

    /// <summary>Called before every write and flush: the moments at which the power can go.</summary>
    internal Action? Moment { get; set; }

    /// <summary>How many writes and changes of the length nothing has made durable yet.</summary>
    internal int Pending => _pending.Count;

    /// <summary>How many of them each flush so far has made durable.</summary>
    internal List<int> Flushed { get; } = [];

    /// <summary>What is about to be written.</summary>
    internal (long Offset, byte[] Data)? Next { get; private set; }

    public string Path => _live.Path;

    public bool IsReadOnly => false;

    public long Length => _live.Length;

    public void Dispose()
    {
        // As with MemoryImageFile.
    }

    public int Read(long offset, Span<byte> buffer) => _live.Read(offset, buffer);

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        (long Offset, byte[] Data) write = (offset, data.ToArray());
        Next = write;
        Moment?.Invoke();
        Next = null;
        _live.Write(offset, data);
        _pending.Add(write);
    }

    public void SetLength(long length)
    {
        Moment?.Invoke();
        _live.SetLength(length);
        _pending.Add((length, []));
    }

    public void Flush()
    {
        Moment?.Invoke();
        Flushed.Add(_pending.Count);
        foreach ((long offset, byte[] data) in _pending)
        {
            Apply(_durable, offset, data);
        }

        _pending.Clear();
    }

    /// <summary>The file as it could be found after a power cut now.</summary>
    internal MemoryImageFile Cut(Random random)
    {
        MemoryImageFile found = _durable.Copy();
        (long Offset, byte[] Data)[] writes = [.. _pending];
        switch (random.Next(4))
        {
            case 0:
                // All up to some point, and a part of the next.
                int whole = random.Next(writes.Length + 1);
                for (int i = 0; i < whole; i++)
                {
                    Apply(found, writes[i].Offset, writes[i].Data);
                }

                if (whole < writes.Length)
                {
                    ApplySectors(found, writes[whole], random, keep: 0.5);
                }

                break;
            case 1:
                // Some of them, in order.
                foreach ((long offset, byte[] data) in writes.Where(_ => random.Next(2) == 0))
                {
                    Apply(found, offset, data);
                }

                break;
            default:
                return CutReordered(random);
        }

        return found;
    }

    /// <summary>The file after a power cut that came between two writes: all before it are there.</summary>
    internal MemoryImageFile CutClean()
    {
        MemoryImageFile found = _durable.Copy();
        foreach ((long offset, byte[] data) in _pending)
        {
            Apply(found, offset, data);
        }

        return found;
    }

    /// <summary>The file after a power cut in the middle of the next write: all before it are there, and some of its sectors.</summary>
    internal MemoryImageFile CutTorn(Random random)
    {
        MemoryImageFile found = CutClean();
        if (Next is { } next)
        {
            ApplySectors(found, next, random, keep: 0.5);
        }

        return found;
    }

    /// <summary>The file after a power cut that overtook what a disk had not put in order yet: some sectors of each write are there, and of those that share a sector any may be the last.</summary>
    internal MemoryImageFile CutReordered(Random random)
    {
        MemoryImageFile found = _durable.Copy();
        (long Offset, byte[] Data)[] writes = [.. _pending];
        random.Shuffle(writes);
        double keep = random.Next(1, 10) / 10.0;
        foreach ((long Offset, byte[] Data) write in writes)
        {
            ApplySectors(found, write, random, keep);
        }

        return found;
    }

    private static void ApplySectors(MemoryImageFile file, (long Offset, byte[] Data) write, Random random, double keep)
    {
        for (int done = 0; done < write.Data.Length;)
        {
            int part = (int)Math.Min(Sector - (write.Offset + done) % Sector, write.Data.Length - done);
            if (random.NextDouble() < keep)
            {
                file.Write(write.Offset + done, write.Data.AsSpan(done, part));
            }

            done += part;
        }
    }

    private static void Apply(MemoryImageFile file, long offset, byte[] data)
    {
        if (data.Length == 0)
        {
            file.SetLength(offset);
        }
        else
        {
            file.Write(offset, data);
        }
    }
}

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
        Moment?.Invoke();
        _live.Write(offset, data);
        _pending.Add((offset, data.ToArray()));
    }

    public void SetLength(long length)
    {
        _live.SetLength(length);
        _pending.Add((length, []));
    }

    public void Flush()
    {
        Moment?.Invoke();
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
                // Some sectors of them, in any order.
                double keep = random.Next(1, 10) / 10.0;
                random.Shuffle(writes);
                foreach ((long Offset, byte[] Data) write in writes)
                {
                    ApplySectors(found, write, random, keep);
                }

                break;
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

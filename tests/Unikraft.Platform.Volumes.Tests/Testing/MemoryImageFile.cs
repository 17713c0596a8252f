namespace Unikraft.Platform.Volumes.Tests.Testing;

/// <summary>A file in memory.</summary>
internal sealed class MemoryImageFile(string path = "/memory/image.qcow2") : IImageFile
{
    private readonly ReaderWriterLockSlim _lock = new();
    private byte[] _bytes = new byte[1 << 16];
    private long _length;

    public string Path => path;

    public bool IsReadOnly { get; init; }

    /// <summary>The file cannot become longer than this.</summary>
    internal long Capacity { get; init; } = int.MaxValue;

    public long Length => Volatile.Read(ref _length);

    public void Dispose()
    {
        // The bytes stay: the file is opened again.
    }

    public int Read(long offset, Span<byte> buffer)
    {
        _lock.EnterReadLock();
        try
        {
            int count = (int)Math.Clamp(_length - offset, 0, buffer.Length);
            _bytes.AsSpan(count == 0 ? 0 : (int)offset, count).CopyTo(buffer);
            return count;
        }
        finally
        {
            _lock.ExitReadLock();
        }
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        if (offset < 0 || offset > Capacity - data.Length)
        {
            throw new BlockDeviceException(BlockDeviceError.NoSpace, path, "The file in memory cannot become that long.");
        }

        if (offset + data.Length > Length)
        {
            SetLength(offset + data.Length);
        }

        _lock.EnterReadLock();
        try
        {
            data.CopyTo(_bytes.AsSpan((int)offset));
        }
        finally
        {
            _lock.ExitReadLock();
        }
    }

    public void SetLength(long length)
    {
        _lock.EnterWriteLock();
        try
        {
            if (length > _bytes.Length)
            {
                Array.Resize(ref _bytes, (int)Math.Max(length, 2L * _bytes.Length));
            }

            _length = Math.Max(_length, length);
        }
        finally
        {
            _lock.ExitWriteLock();
        }
    }

    public void Flush()
    {
        // Nothing gets lost here; see PowerCutFile.
    }

    internal ReadOnlySpan<byte> Contents => _bytes.AsSpan(0, (int)_length);

    internal MemoryImageFile Copy()
    {
        MemoryImageFile copy = new(path) { Capacity = Capacity };
        copy.Write(0, Contents);
        return copy;
    }

    internal static MemoryImageFile Of(string file)
    {
        MemoryImageFile copy = new(file);
        copy.Write(0, File.ReadAllBytes(file));
        return copy;
    }

    internal void SaveTo(string file)
    {
        using FileStream stream = File.Create(file);
        stream.Write(Contents);
    }
}

namespace Unikraft.Platform.Volumes;

/// <summary>A raw image file as a disk: a ROM when it is opened for reading only.</summary>
internal sealed class RawBlockDevice : IBlockDevice
{
    private static readonly byte[] Zeroes = new byte[64 << 10];

    private readonly IImageFile _file;
    private bool _isDisposed;

    /// <summary>Makes a disk of a file, whose last block is filled up with zeroes if it is not whole and the disk is read-only.</summary>
    /// <param name="file">The file. Owned by the disk, unless this throws.</param>
    /// <exception cref="DiskImageException">The file may be written to and does not consist of whole blocks.</exception>
    internal RawBlockDevice(IImageFile file)
    {
        _file = file;
        long length = file.Length;
        Size = (length + BlockSize - 1) & -BlockSize;
        if (!file.IsReadOnly && Size != length)
        {
            throw new DiskImageException(
                DiskImageError.InvalidSize,
                file.Path,
                $"The disk image '{file.Path}' does not consist of whole blocks of {BlockSize} bytes. Extend it, or use it read-only.");
        }
    }

    public long Size { get; }

    public int BlockSize => 512;

    public bool IsReadOnly => _file.IsReadOnly;

    public ValueTask DisposeAsync()
    {
        _isDisposed = true;
        _file.Dispose();
        return ValueTask.CompletedTask;
    }

    public ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        Begin(offset, buffer.Length, isWrite: false, cancellationToken);
        buffer.Span[_file.Read(offset, buffer.Span)..].Clear();
        return ValueTask.CompletedTask;
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default)
    {
        Begin(offset, data.Length, isWrite: true, cancellationToken);
        _file.Write(offset, data.Span);
        return ValueTask.CompletedTask;
    }

    public async ValueTask FlushAsync(CancellationToken cancellationToken = default)
    {
        Begin(0, 0, isWrite: false, cancellationToken);
        if (!IsReadOnly)
        {
            await Task.Run(_file.Flush, CancellationToken.None).ConfigureAwait(false);
        }
    }

    public ValueTask DiscardAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        // There is no portable way to give the room back; what was there may stay.
        Begin(offset, length, isWrite: true, cancellationToken);
        return ValueTask.CompletedTask;
    }

    public ValueTask WriteZeroesAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        Begin(offset, length, isWrite: true, cancellationToken);
        for (long done = 0; done < length; done += Zeroes.Length)
        {
            _file.Write(offset + done, Zeroes.AsSpan(0, (int)Math.Min(Zeroes.Length, length - done)));
        }

        return ValueTask.CompletedTask;
    }

    private void Begin(long offset, long length, bool isWrite, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        BlockRange.ThrowIfOutside(_file.Path, Size, offset, length);
        if (isWrite && IsReadOnly)
        {
            BlockRange.ThrowReadOnly(_file.Path);
        }
    }
}

using System.Globalization;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.TestKit;

/// <summary>A disk in memory. What was discarded reads as zeroes; flushes are counted.</summary>
public sealed class MemoryBlockDevice : IBlockDevice
{
    private readonly byte[] _bytes;
    private readonly Lock _lock = new();
    private bool _isDisposed;

    /// <summary>Makes a disk of zeroes.</summary>
    /// <param name="size">Its size in bytes, a multiple of 512.</param>
    /// <param name="isReadOnly">Whether it can only be read.</param>
    public MemoryBlockDevice(int size, bool isReadOnly = false)
        : this(new byte[size], isReadOnly)
    {
    }

    /// <summary>Makes a disk of an array, which it then shares.</summary>
    /// <param name="bytes">The contents, whose length is a multiple of 512.</param>
    /// <param name="isReadOnly">Whether it can only be read.</param>
    public MemoryBlockDevice(byte[] bytes, bool isReadOnly = false)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(bytes.Length % BlockSize, 0, nameof(bytes));
        _bytes = bytes;
        IsReadOnly = isReadOnly;
    }

    /// <inheritdoc/>
    public long Size => _bytes.Length;

    /// <inheritdoc/>
    public int BlockSize => 512;

    /// <inheritdoc/>
    public bool IsReadOnly { get; }

    /// <summary>How many flushes were asked for.</summary>
    public int Flushes { get; private set; }

    /// <inheritdoc/>
    public ValueTask DisposeAsync()
    {
        _isDisposed = true;
        return ValueTask.CompletedTask;
    }

    /// <inheritdoc/>
    public ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            Range(offset, buffer.Length, isWrite: false, cancellationToken).CopyTo(buffer.Span);
            return ValueTask.CompletedTask;
        }
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            data.Span.CopyTo(Range(offset, data.Length, isWrite: true, cancellationToken));
            return ValueTask.CompletedTask;
        }
    }

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            _ = Range(0, 0, isWrite: false, cancellationToken);
            Flushes++;
            return ValueTask.CompletedTask;
        }
    }

    /// <inheritdoc/>
    public ValueTask DiscardAsync(long offset, long length, CancellationToken cancellationToken = default) =>
        WriteZeroesAsync(offset, length, cancellationToken);

    /// <inheritdoc/>
    public ValueTask WriteZeroesAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            Range(offset, length, isWrite: true, cancellationToken).Clear();
            return ValueTask.CompletedTask;
        }
    }

    private Span<byte> Range(long offset, long length, bool isWrite, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (offset < 0 || length < 0 || offset > Size - length)
        {
            throw new BlockDeviceException(
                BlockDeviceError.OutOfRange,
                "memory",
                string.Create(CultureInfo.InvariantCulture, $"The disk in memory has {Size} bytes: {length} at {offset} are not all among them."));
        }

        if (isWrite && IsReadOnly)
        {
            throw new BlockDeviceException(BlockDeviceError.ReadOnly, "memory", "The disk in memory is read-only.");
        }

        return _bytes.AsSpan((int)offset, (int)length);
    }
}

using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.TestKit;

/// <summary>A disk that fails, or holds its requests back, when a test says so; otherwise the disk it is made over.</summary>
/// <param name="inner">That disk, which is disposed of with this one.</param>
public sealed class FaultInjectingBlockDevice(IBlockDevice inner) : IBlockDevice
{
    /// <inheritdoc/>
    public long Size => inner.Size;

    /// <inheritdoc/>
    public int BlockSize => inner.BlockSize;

    /// <inheritdoc/>
    public bool IsReadOnly => inner.IsReadOnly;

    /// <summary>Decides about every request by what it is, where and how long: the error it fails with, or <see langword="null"/>.</summary>
    public Func<BlockOperation, long, long, BlockDeviceError?>? Fault { get; set; }

    /// <summary>What every request waits for before it is done. Tests complete it when they like.</summary>
    public Func<BlockOperation, Task>? Delay { get; set; }

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => inner.DisposeAsync();

    /// <inheritdoc/>
    public async ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        await BeginAsync(BlockOperation.Read, offset, buffer.Length).ConfigureAwait(false);
        await inner.ReadAsync(offset, buffer, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default)
    {
        await BeginAsync(BlockOperation.Write, offset, data.Length).ConfigureAwait(false);
        await inner.WriteAsync(offset, data, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask FlushAsync(CancellationToken cancellationToken = default)
    {
        await BeginAsync(BlockOperation.Flush, 0, 0).ConfigureAwait(false);
        await inner.FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask DiscardAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        await BeginAsync(BlockOperation.Discard, offset, length).ConfigureAwait(false);
        await inner.DiscardAsync(offset, length, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask WriteZeroesAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        await BeginAsync(BlockOperation.WriteZeroes, offset, length).ConfigureAwait(false);
        await inner.WriteZeroesAsync(offset, length, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask BeginAsync(BlockOperation operation, long offset, long length)
    {
        if (Delay is { } delay)
        {
            await delay(operation).ConfigureAwait(false);
        }

        if (Fault?.Invoke(operation, offset, length) is { } error)
        {
            throw new BlockDeviceException(error, "fault", $"The test makes a request fail: {operation} with {error}.");
        }
    }
}

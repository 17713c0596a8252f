namespace Unikraft.Platform.Volumes;

/// <summary>A disk: bytes at positions, of which only what was flushed survives a power cut.</summary>
/// <remarks>
/// <para>
/// Any number of requests may be outstanding at once, from any threads. Requests whose ranges overlap and that are outstanding together take
/// effect in any order, but block by block: no block of <see cref="BlockSize"/> bytes is ever a mixture that nobody wrote.
/// </para>
/// <para>
/// Reads and writes may do their I/O on the calling thread and return completed; whoever must not wait for the host's disk calls from a thread
/// that may. Offsets and lengths are in bytes and need not be multiples of <see cref="BlockSize"/>; such that are not may cost a read.
/// </para>
/// <para>
/// A request that fails leaves each block of its range as it was or as it was asked to be. Every request throws
/// <see cref="BlockDeviceException"/> when the device cannot do it and <see cref="ObjectDisposedException"/> after the device was disposed of.
/// </para>
/// </remarks>
public interface IBlockDevice : IAsyncDisposable
{
    /// <summary>The size in bytes.</summary>
    long Size { get; }

    /// <summary>The size in bytes of the smallest unit that is written as a whole; a power of two, at least 512.</summary>
    int BlockSize { get; }

    /// <summary>Whether every change is refused with <see cref="BlockDeviceError.ReadOnly"/>. Flushing does nothing then.</summary>
    bool IsReadOnly { get; }

    /// <summary>Reads.</summary>
    /// <param name="offset">Where, in bytes.</param>
    /// <param name="buffer">Filled as a whole. Its contents are undefined when the request fails.</param>
    /// <param name="cancellationToken">Cancels the request as long as it has not begun.</param>
    /// <exception cref="BlockDeviceException">The range is not all on the device, or the host cannot read.</exception>
    ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken = default);

    /// <summary>Writes. Once this completes reads see the data; it is durable after the next <see cref="FlushAsync"/>.</summary>
    /// <param name="offset">Where, in bytes.</param>
    /// <param name="data">The bytes; not to be changed before the request is complete.</param>
    /// <param name="cancellationToken">Cancels the request as long as it has not begun.</param>
    /// <exception cref="BlockDeviceException">The range is not all on the device, or the host cannot write.</exception>
    ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default);

    /// <summary>Makes everything durable that was complete before the call.</summary>
    /// <param name="cancellationToken">Cancels the request as long as it has not begun.</param>
    /// <exception cref="BlockDeviceException">
    /// The host cannot write. When it was the host's own flush that failed, some data may be lost, and everything but reading fails from then on.
    /// </exception>
    ValueTask FlushAsync(CancellationToken cancellationToken = default);

    /// <summary>
    /// Tells that a range is not needed any more. Each block of it reads as it did before or as zeroes afterwards, and what it took on the host may be
    /// used for something else.
    /// </summary>
    /// <param name="offset">Where, in bytes.</param>
    /// <param name="length">How many bytes.</param>
    /// <param name="cancellationToken">Cancels the request as long as it has not begun.</param>
    /// <exception cref="BlockDeviceException">The range is not all on the device, or the host cannot write.</exception>
    ValueTask DiscardAsync(long offset, long length, CancellationToken cancellationToken = default);

    /// <summary>Makes a range read as zeroes, without writing them where the device can do without.</summary>
    /// <param name="offset">Where, in bytes.</param>
    /// <param name="length">How many bytes.</param>
    /// <param name="cancellationToken">Cancels the request as long as it has not begun.</param>
    /// <exception cref="BlockDeviceException">The range is not all on the device, or the host cannot write.</exception>
    ValueTask WriteZeroesAsync(long offset, long length, CancellationToken cancellationToken = default);
}

using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>A disk that fails when it is asked for its size, which happens while a machine is constructed.</summary>
internal sealed class UnusableBlockDevice : IBlockDevice
{
    internal const string Message = "The disk is gone.";

    public long Size => throw new InvalidOperationException(Message);

    public int BlockSize => 512;

    public bool IsReadOnly => false;

    public ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken = default) => throw new InvalidOperationException(Message);

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default) => throw new InvalidOperationException(Message);

    public ValueTask FlushAsync(CancellationToken cancellationToken = default) => throw new InvalidOperationException(Message);

    public ValueTask DiscardAsync(long offset, long length, CancellationToken cancellationToken = default) => throw new InvalidOperationException(Message);

    public ValueTask WriteZeroesAsync(long offset, long length, CancellationToken cancellationToken = default) => throw new InvalidOperationException(Message);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}

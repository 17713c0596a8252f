namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>The checksums of some chunks of pages, computed on another core if one is free while the caller does something else, and by the caller then.</summary>
internal sealed class ChunkHashing : IThreadPoolWorkItem
{
    private readonly ReadOnlyMemory<byte> _pages;
    private readonly Memory<byte> _checksums;
    private readonly int _chunks;
    private int _next;
    private int _done;

    private ChunkHashing(ReadOnlyMemory<byte> pages, Memory<byte> checksums)
    {
        _pages = pages;
        _checksums = checksums;
        _chunks = (pages.Length + LayerFormat.ChunkSize - 1) / LayerFormat.ChunkSize;
    }

    /// <param name="pages">The pages, which stay as they are until <see cref="Complete"/> returns.</param>
    /// <param name="checksums">Where the checksums go.</param>
    internal static ChunkHashing Begin(ReadOnlyMemory<byte> pages, Memory<byte> checksums)
    {
        ChunkHashing hashing = new(pages, checksums);
        if (hashing._chunks > 1)
        {
            ThreadPool.UnsafeQueueUserWorkItem(hashing, preferLocal: false);
        }

        return hashing;
    }

    /// <summary>Returns when all checksums are there. Somebody who comes later finds nothing to do.</summary>
    internal void Complete()
    {
        Execute();
        SpinWait spinner = default;
        while (Volatile.Read(ref _done) < _chunks)
        {
            spinner.SpinOnce(sleep1Threshold: -1);
        }
    }

    public void Execute()
    {
        for (int chunk; (chunk = Interlocked.Increment(ref _next) - 1) < _chunks;)
        {
            int start = chunk * LayerFormat.ChunkSize;
            Digest
                .Compute(_pages.Span[start..Math.Min(_pages.Length, start + LayerFormat.ChunkSize)])
                .Write(_checksums.Span[(chunk * Digest.SizeInBytes)..]);
            Interlocked.Increment(ref _done);
        }
    }
}

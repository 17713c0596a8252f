namespace Unikraft.Platform.Kvm.Memory;

/// <summary>Keeps a few staging buffers for the next snapshots, whichever machine they are of.</summary>
internal sealed class StagingPool : IDisposable
{
    private const int MinPages = 1024;
    private const int MaxKept = 2;

    private readonly Lock _lock = new();
    private readonly List<StagingBuffer> _kept = [];
    private bool _disposed;

    /// <summary>Takes a buffer of at least a number of pages.</summary>
    internal StagingBuffer Rent(int pages)
    {
        lock (_lock)
        {
            int index = _kept.FindIndex(buffer => buffer.Capacity >= pages);
            if (index >= 0)
            {
                StagingBuffer buffer = _kept[index];
                _kept.RemoveAt(index);
                return buffer;
            }
        }

        return new StagingBuffer(Math.Max(MinPages, pages));
    }

    /// <summary>Gives a buffer back; the larger ones are kept.</summary>
    internal void Return(StagingBuffer buffer)
    {
        StagingBuffer? surplus = buffer;
        lock (_lock)
        {
            if (!_disposed)
            {
                _kept.Add(buffer);
                surplus = _kept.Count > MaxKept ? _kept.MinBy(static kept => kept.Capacity) : null;
                _ = surplus is not null && _kept.Remove(surplus);
            }
        }

        surplus?.Dispose();
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            _kept.ForEach(static buffer => buffer.Dispose());
            _kept.Clear();
        }
    }
}

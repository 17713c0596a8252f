using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Volumes;

/// <summary>One image of a chain: what is not in it is in the layer beneath it. Counted by its users; the last one closes it.</summary>
internal abstract class BlockLayer
{
    private int _users = 1;
    private Lock _lock = new();

    /// <summary>The path of its file.</summary>
    internal abstract string Path { get; }

    internal abstract long Size { get; }

    /// <summary>Whether it does not change any more, so that others may be based on it.</summary>
    internal abstract bool IsFrozen { get; }

    /// <summary>Where it is noted that it is open, if anywhere.</summary>
    internal OpenLayers? Registry { get; private set; }

    /// <summary>The file system that it is in.</summary>
    internal IFileLayer Files => Registry?.Files ?? HostFileLayer.Default;

    /// <summary>The name of its format, as qcow2 images name that of their backing file.</summary>
    internal abstract string Format { get; }

    /// <summary>Reads a range that is all in the layer. Safe for concurrent use.</summary>
    internal abstract void Read(long offset, Span<byte> buffer);

    /// <summary>The file that it is in, as long as it is open.</summary>
    internal abstract IImageFile File { get; }

    /// <summary>Makes durable what was written to it and to the layers beneath. Returns at once when it is.</summary>
    internal abstract void Seal();

    /// <summary>Takes part in its use.</summary>
    internal BlockLayer Share()
    {
        ObjectDisposedException.ThrowIf(Interlocked.Increment(ref _users) <= 1, this);
        return this;
    }

    /// <summary>Takes part in its use, unless it is closed already.</summary>
    internal bool TryShare()
    {
        for (int users = Volatile.Read(ref _users); users > 0;)
        {
            int seen = Interlocked.CompareExchange(ref _users, users + 1, users);
            if (seen == users)
            {
                return true;
            }

            users = seen;
        }

        return false;
    }

    /// <summary>Ends one use of it.</summary>
    /// <exception cref="BlockDeviceException">It was the last one, and what was written could not be stored. The file is closed all the same.</exception>
    internal void Release()
    {
        for (int users = Volatile.Read(ref _users); users > 1;)
        {
            int seen = Interlocked.CompareExchange(ref _users, users - 1, users);
            if (seen == users)
            {
                return;
            }

            users = seen;
        }

        // Whoever looks it up meanwhile waits, and does not find it any more.
        lock (_lock)
        {
            if (Interlocked.Decrement(ref _users) == 0)
            {
                try
                {
                    Close();
                }
                finally
                {
                    Registry?.Remove(this);
                }
            }
        }
    }

    internal void Register(OpenLayers layers)
    {
        Registry = layers;
        _lock = layers.Lock;
    }

    /// <summary>Reads a range of a disk that ends where this layer does or later: what is beyond it is zeroes.</summary>
    internal static void ReadOrZero(BlockLayer? layer, long offset, Span<byte> buffer)
    {
        int present = layer is null ? 0 : (int)Math.Clamp(layer.Size - offset, 0, buffer.Length);
        if (present > 0)
        {
            layer!.Read(offset, buffer[..present]);
        }

        buffer[present..].Clear();
    }

    protected abstract void Close();
}

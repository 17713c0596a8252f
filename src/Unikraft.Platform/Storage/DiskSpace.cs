using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Storage;

/// <summary>The room on the disk of a data directory: what is free, but for what was promised to others and what is to stay free.</summary>
/// <param name="files">The directory.</param>
/// <param name="floor">So many bytes stay free.</param>
internal sealed class DiskSpace(DataFiles files, long floor) : IDiskSpace
{
    private readonly Lock _lock = new();
    private long _reserved;

    public IDisposable Reserve(long bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        lock (_lock)
        {
            // Under the lock: what was free before somebody else had written would count twice.
            long free = files.FreeBytes();
            if (free - _reserved - floor < bytes)
            {
                throw new StorageException(
                    files.Root,
                    FormattableString.Invariant(
                        $"The disk of '{files.Root}' has {free} bytes left, of which {_reserved} are reserved and {floor} are to stay free; {bytes} more are needed. Free some space and try again."),
                    isFull: true);
            }

            _reserved += bytes;
            return new Reservation(this, bytes);
        }
    }

    private sealed class Reservation(DiskSpace space, long bytes) : IDisposable
    {
        private int _isDisposed;

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _isDisposed, 1) == 0)
            {
                lock (space._lock)
                {
                    space._reserved -= bytes;
                }
            }
        }
    }
}

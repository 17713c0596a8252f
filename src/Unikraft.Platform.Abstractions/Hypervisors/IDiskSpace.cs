namespace Unikraft.Platform.Hypervisors;

/// <summary>The room on a disk, of which others take as well and some is to stay free. Safe for concurrent use.</summary>
public interface IDiskSpace
{
    /// <summary>Sets room aside for what is about to be written.</summary>
    /// <param name="bytes">How much, 0 or more.</param>
    /// <returns>Disposed of when it was written, or is not to be any more.</returns>
    /// <exception cref="StorageException">There is not so much to spare; <see cref="StorageException.IsFull"/> is set. Or the host refused.</exception>
    IDisposable Reserve(long bytes);
}

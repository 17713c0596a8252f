using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// The images that are open in this process, by path. Volumes with a common base share one open file and what is in memory of its mapping; and an
/// image that was frozen in use can be the base of another volume before its writer has closed it.
/// </summary>
/// <remarks>
/// Safe for concurrent use. Opening and closing take turns, so that nobody finds an image that is just being closed. Frozen images are
/// complete by then as a rule, and closing one costs nothing.
/// </remarks>
/// <param name="files">The file system; that of the host when <see langword="null"/>.</param>
internal sealed class OpenLayers(IFileLayer? files = null)
{
    private readonly Dictionary<string, BlockLayer> _layers = new(StringComparer.Ordinal);
    private readonly HashSet<string> _incomplete = new(StringComparer.Ordinal);

    /// <summary>The file system that they are in.</summary>
    internal IFileLayer Files { get; } = files ?? HostFileLayer.Default;

    /// <summary>Takes the names of new images to the disk, before anything there refers to them.</summary>
    internal Action? SyncNames { get; set; }

    /// <summary>Held while images are opened and closed.</summary>
    internal Lock Lock { get; } = new();

    /// <summary>Takes part in the use of an image. The caller holds the lock.</summary>
    /// <returns>The image, or null when it is not open.</returns>
    /// <exception cref="DiskImageException">Somebody writes to it.</exception>
    internal BlockLayer? Find(string path)
    {
        if (!_layers.TryGetValue(path, out BlockLayer? layer))
        {
            return null;
        }

        return layer.IsFrozen
            ? layer.Share()
            : throw new DiskImageException(
                DiskImageError.InUse,
                path,
                $"The disk image '{path}' is in use by a volume that writes to it. Cut the volume, or dispose of it first.");
    }

    /// <summary>Whether an image is open. The caller holds the lock.</summary>
    internal bool Has(string path) => _layers.ContainsKey(path);

    /// <summary>Notes an image that was opened. The caller holds the lock, or nobody knows the path yet.</summary>
    internal void Add(BlockLayer layer)
    {
        lock (Lock)
        {
            _layers.Add(layer.Path, layer);
            layer.Register(this);
            if (!layer.IsFrozen)
            {
                // Opening it to write has repaired it.
                _incomplete.Remove(layer.Path);
            }
        }
    }

    /// <summary>An image was closed and could not be completed: it is to be repaired before others are put on it, or it is taken for what it stays.</summary>
    internal void NoteIncomplete(string path)
    {
        lock (Lock)
        {
            _incomplete.Add(path);
        }
    }

    /// <summary>Whether one of these images is to be repaired.</summary>
    internal bool IsAnyIncomplete(IEnumerable<string> paths)
    {
        lock (Lock)
        {
            return _incomplete.Count > 0 && paths.Any(_incomplete.Contains);
        }
    }

    internal void Remove(BlockLayer layer) => _layers.Remove(layer.Path);
}

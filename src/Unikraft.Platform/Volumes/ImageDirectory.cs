using Microsoft.Extensions.Logging;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// The directory of the images of all volumes. Each image is counted by who needs it: volumes whose top it is, and images that are based on it. The last one deletes
/// its file.
/// </summary>
/// <remarks>Safe for concurrent use.</remarks>
internal sealed class ImageDirectory : IDisposable
{
    internal const string OverlaySuffix = ".qcow2";
    internal const string RawSuffix = ".raw";

    private const string LockName = "lock";

    /// <summary>Fewer images are not worth copying them.</summary>
    private const int MinFolded = 8;
    private const int LongChain = 64;
    private const int MuchLarger = 4;
    private const long SmallBytes = 16 << 20;

    private readonly Lock _lock = new();

    // Held from when an image is forgotten until its file is gone. Taken before the other.
    private readonly Lock _files = new();
    private readonly Dictionary<string, Image> _images = new(StringComparer.Ordinal);
    private readonly ILogger _logger;
    private readonly FileStream _held;
    private readonly bool _isTemporary;
    private IDirectorySync? _directories;

    private ImageDirectory(string path, FileStream held, bool isTemporary, ILogger logger)
    {
        Path = path;
        _held = held;
        _isTemporary = isTemporary;
        _logger = logger;
    }

    internal string Path { get; }

    /// <summary>The images that are open.</summary>
    internal OpenLayers Layers { get; } = new();

    /// <summary>Opens a directory and holds it for this caller alone.</summary>
    /// <param name="path">The directory, which is made if it does not exist; <see langword="null"/> for one that is deleted in the end.</param>
    /// <param name="logger">Where to log.</param>
    /// <exception cref="StorageException">It is open elsewhere, or the host refused.</exception>
    internal static ImageDirectory Open(string? path, ILogger logger)
    {
        string shown = path ?? System.IO.Path.GetTempPath();
        try
        {
            string full = path is null
                ? Directory.CreateTempSubdirectory("unikraft-volumes-").FullName
                : Directory.CreateDirectory(System.IO.Path.GetFullPath(path)).FullName;
            FileStream held = new(System.IO.Path.Combine(full, LockName), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            return new ImageDirectory(full, held, path is null, logger);
        }
        catch (IOException error)
        {
            throw new StorageException(
                shown,
                $"The directory of volumes '{shown}' cannot be used: {error.Message} Close it where it is open, or choose another one.");
        }
        catch (UnauthorizedAccessException error)
        {
            throw new StorageException(shown, $"The directory of volumes '{shown}' cannot be used: {error.Message}");
        }
    }

    public void Dispose()
    {
        _held.Dispose();
        if (!_isTemporary)
        {
            return;
        }

        try
        {
            Directory.Delete(Path, recursive: true);
        }
        catch (IOException error)
        {
            _logger.ImageNotDeleted(error, Path);
        }
    }

    /// <summary>Says how the names of files are taken to the disk. Those of a directory that is deleted in the end need not be.</summary>
    internal void Use(IDirectorySync? directories)
    {
        _directories = _isTemporary ? null : directories;
        Layers.SyncNames = SyncNames;
    }

    /// <summary>Takes the names of all images to the disk. Without a call for it, those of a file that is synced go with it on the usual file systems.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal void SyncNames()
    {
        try
        {
            _directories?.Sync(Path);
        }
        catch (IOException error)
        {
            throw new StorageException(Path, $"The host cannot write the names in '{Path}' to the disk: {error.Message} Look at its log.");
        }
    }

    /// <summary>Takes an image to the disk that does not change any more, if that is still under way.</summary>
    internal void Seal(string name)
    {
        BlockLayer? layer;
        lock (Layers.Lock)
        {
            layer = Layers.Find(PathOf(name));
        }

        try
        {
            layer?.Seal();
        }
        finally
        {
            layer?.Release();
        }
    }

    internal static string NewName(string suffix = OverlaySuffix) => $"{Guid.NewGuid():D}{suffix}";

    internal string PathOf(string name) => System.IO.Path.Combine(Path, name);

    /// <summary>Notes a new image, which nobody needs yet.</summary>
    internal void Add(string name, string? backing)
    {
        lock (_lock)
        {
            _images.Add(name, new Image(backing) { IsCounted = true });
            if (backing is not null && _images.TryGetValue(backing, out Image? below))
            {
                below.Holds++;
            }
        }
    }

    /// <summary>Notes an image that is there, and those beneath it.</summary>
    /// <exception cref="DiskImageException">One of them is missing or unreadable.</exception>
    internal void Find(string name)
    {
        lock (_lock)
        {
            for (string? next = name; next is not null && !_images.ContainsKey(next);)
            {
                string? backing = BackingOf(next);
                _images.Add(next, new Image(backing));
                next = backing;
            }
        }

        // Counted once all are known: whoever is new is based on whoever is beneath.
        lock (_lock)
        {
            for (Image image = _images[name]; !image.IsCounted;)
            {
                image.IsCounted = true;
                if (image.Backing is null || !_images.TryGetValue(image.Backing, out Image? below))
                {
                    break;
                }

                below.Holds++;
                image = below;
            }
        }
    }

    /// <summary>Somebody needs an image.</summary>
    internal void Hold(string name)
    {
        lock (_lock)
        {
            _images[name].Holds++;
        }
    }

    /// <summary>Somebody does not need an image any more. When nobody does it is deleted.</summary>
    internal void Release(string name)
    {
        List<string> unused = [];
        lock (_files)
        {
            lock (_lock)
            {
                for (string? next = name; next is not null && _images.TryGetValue(next, out Image? image) && --image.Holds <= 0;)
                {
                    _images.Remove(next);
                    unused.Add(next);
                    next = image.Backing;
                }
            }

            unused.ForEach(Delete);
        }
    }

    /// <summary>Completes what a crash has left incomplete of images that nobody writes to any more.</summary>
    /// <exception cref="DiskImageException">One of them is corrupt.</exception>
    /// <exception cref="BlockDeviceException">The host cannot read or write one of them.</exception>
    internal void Repair(string name, IReadOnlyCollection<string> outside)
    {
        for (string? next = name; next?.EndsWith(OverlaySuffix, StringComparison.Ordinal) is true;)
        {
            bool isDirty;
            using (ImageFile file = ImageFile.Open(PathOf(next), isReadOnly: true))
            {
                isDirty = Qcow2Header.Read(file).IsDirty;
            }

            if (isDirty)
            {
                ImageChain.Open(PathOf(next), isReadOnly: false, Path, outside: outside).Release();
            }

            lock (_lock)
            {
                next = _images.TryGetValue(next, out Image? image) ? image.Backing : null;
            }
        }
    }

    /// <summary>An image and those beneath it in the directory, itself first.</summary>
    internal IReadOnlyList<string> ChainOf(string name)
    {
        List<string> chain = [];
        lock (_lock)
        {
            for (string? next = name; next is not null; next = _images.GetValueOrDefault(next)?.Backing)
            {
                chain.Add(next);
            }
        }

        return chain;
    }

    /// <summary>Whether there is an image of a name that somebody needs.</summary>
    internal bool Has(string name)
    {
        lock (_lock)
        {
            return _images.ContainsKey(name);
        }
    }

    /// <summary>Somebody needs an image, which is there; or makes its file, which nobody knows until it is noted.</summary>
    /// <returns>The file; <see langword="null"/> when there is such an image.</returns>
    /// <exception cref="IOException">The host refused.</exception>
    internal FileStream? HoldOrCreate(string name)
    {
        lock (_files)
        {
            lock (_lock)
            {
                if (_images.TryGetValue(name, out Image? image))
                {
                    image.Holds++;
                    return null;
                }
            }

            return new FileStream(PathOf(name), FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 0);
        }
    }

    /// <summary>Removes a file that was to become an image, if it is there.</summary>
    internal void Discard(string name)
    {
        if (!Has(name))
        {
            Delete(name);
        }
    }

    /// <summary>Opens an image that does not change any more, to read it as a file. One that is in use is read through whoever has it open.</summary>
    /// <exception cref="DiskImageException">There is none, or somebody writes to it.</exception>
    internal ImageStream OpenAsFile(string name)
    {
        lock (Layers.Lock)
        {
            return Layers.Find(PathOf(name)) is { } layer ? new ImageStream(layer) : new ImageStream(ImageFile.Open(PathOf(name), isReadOnly: true));
        }
    }

    /// <summary>How many images a chain has.</summary>
    internal int DepthOf(string name)
    {
        lock (_lock)
        {
            int depth = 0;
            for (string? next = name; next is not null && _images.TryGetValue(next, out Image? image); next = image.Backing)
            {
                depth++;
            }

            return depth;
        }
    }

    /// <summary>
    /// How many images right beneath a top are to be made one: those that nobody else needs, and in a chain that has become too long also others, which stay for them. Small
    /// ones are not put together with a much larger one, so that a byte is not copied again and again.
    /// </summary>
    /// <returns>0 when there are too few.</returns>
    internal int CountFoldable(string top)
    {
        lock (_lock)
        {
            bool isTooLong = DepthOf(top) > LongChain;
            long bytes = 0;
            int count = 0;
            string? next = _images.GetValueOrDefault(top)?.Backing;
            while (next?.EndsWith(OverlaySuffix, StringComparison.Ordinal) is true
                && _images.TryGetValue(next, out Image? image)
                && (image.Holds == 1 || isTooLong))
            {
                FileInfo file = new(PathOf(next));
                if (!file.Exists || (count > 0 && file.Length > (bytes * MuchLarger) + SmallBytes))
                {
                    break;
                }

                bytes += file.Length;
                count++;
                next = image.Backing;
            }

            return count >= MinFolded ? count : 0;
        }
    }

    /// <summary>One image has taken the place of some beneath a top. Those that nobody else needs are deleted.</summary>
    internal void Replace(string top, int count, string folded)
    {
        string first;
        lock (_lock)
        {
            Image above = _images[top];
            first = above.Backing!;
            string? beneath = first;
            for (int i = 0; i < count; i++)
            {
                beneath = _images[beneath!].Backing;
            }

            Add(folded, beneath);
            _images[folded].Holds++;
            above.Backing = folded;
        }

        Release(first);
    }

    /// <summary>Deletes the images that no volume needs, which a crash has left behind.</summary>
    internal void DeleteUnknown()
    {
        foreach (string path in Directory.EnumerateFiles(Path))
        {
            string name = System.IO.Path.GetFileName(path);
            bool isImage = name.EndsWith(OverlaySuffix, StringComparison.Ordinal) || name.EndsWith(RawSuffix, StringComparison.Ordinal);
            lock (_lock)
            {
                isImage &= !_images.ContainsKey(name);
            }

            if (isImage)
            {
                Delete(name);
            }
        }
    }

    private string? BackingOf(string name)
    {
        if (!name.EndsWith(OverlaySuffix, StringComparison.Ordinal))
        {
            return File.Exists(PathOf(name)) ? null : throw Missing(name);
        }

        using ImageFile file = ImageFile.Open(PathOf(name), isReadOnly: true);
        string? backing = Qcow2Header.Read(file).BackingFile;

        // What is elsewhere is not ours to delete.
        return backing is null || backing.Contains('/', StringComparison.Ordinal) ? null : backing;
    }

    private DiskImageException Missing(string name) =>
        new(DiskImageError.Unreadable, PathOf(name), $"There is no disk image '{PathOf(name)}'.");

    private void Delete(string name)
    {
        try
        {
            File.Delete(PathOf(name));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            _logger.ImageNotDeleted(error, PathOf(name));
        }
    }

    private sealed class Image(string? backing)
    {
        /// <summary>The image beneath, if that is in the directory too.</summary>
        internal string? Backing { get; set; } = backing;

        internal int Holds { get; set; }

        /// <summary>Whether the image beneath counts it.</summary>
        internal bool IsCounted { get; set; }
    }
}

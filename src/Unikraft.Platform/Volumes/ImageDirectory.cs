using Microsoft.Extensions.Logging;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage;
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

    // Linux' number, which .NET passes on as HResult.
    private const int Interrupted = 4;

    /// <summary>Fewer images are not worth copying them.</summary>
    private const int MinFolded = 8;
    private const int LongChain = 64;
    private const int MuchLarger = 4;
    private const long SmallBytes = 16 << 20;

    private readonly Lock _lock = new();

    // Held from when an image is forgotten until its file is gone. Taken before the other.
    private readonly Lock _files = new();
    private readonly Dictionary<string, Image> _images = new(StringComparer.Ordinal);
    private readonly HashSet<string> _unchecked = new(StringComparer.Ordinal);
    private readonly ILogger _logger;
    private readonly IDisposable _held;
    private readonly bool _isTemporary;
    private IDirectorySync? _directories;

    private ImageDirectory(DataFiles files, IDisposable held, bool isTemporary, ILogger logger)
    {
        Files = files;
        Layers = new OpenLayers(files.Layer);
        _held = held;
        _isTemporary = isTemporary;
        _logger = logger;
    }

    internal string Path => Files.Root;

    /// <summary>The files in it.</summary>
    internal DataFiles Files { get; }

    /// <summary>The images that are open.</summary>
    internal OpenLayers Layers { get; }

    /// <summary>Opens a directory and holds it for this caller alone.</summary>
    /// <param name="path">The directory, which is made if it does not exist; <see langword="null"/> for one that is deleted in the end.</param>
    /// <param name="logger">Where to log.</param>
    /// <param name="layer">The file system; that of the host when <see langword="null"/>, as it is for a directory that is deleted in the end.</param>
    /// <exception cref="StorageException">It is open elsewhere, or the host refused.</exception>
    internal static ImageDirectory Open(string? path, ILogger logger, IFileLayer? layer = null)
    {
        if (path is null)
        {
            return OpenTemporary(logger);
        }

        DataFiles files = new(layer ?? HostFileLayer.Default, System.IO.Path.GetFullPath(path), isSynced: true);
        IDisposable? held;
        try
        {
            files.MakeDirectory("");
            held = files.TryLock(LockName);
        }
        catch (StorageException error)
        {
            throw new StorageException(path, $"The directory of volumes '{path}' cannot be used: {error.Message}", error.IsFull);
        }

        return held is null
            ? throw new StorageException(path, $"The directory of volumes '{path}' cannot be used: it is open already. Close it where it is open, or choose another one.")
            : new ImageDirectory(files, held, isTemporary: false, logger);
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
            Files.DeleteDirectory("");
        }
        catch (StorageException error)
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
    internal void SyncNames() => Sync(Path);

    /// <summary>Takes the directory's own name to the disk, also of one that was there: whoever made it may have ended before that.</summary>
    /// <exception cref="StorageException">The host refused.</exception>
    internal void SyncName() => Sync(System.IO.Path.GetDirectoryName(Path) ?? Path);

    private void Sync(string directory)
    {
        try
        {
            _directories?.Sync(directory);
        }
        catch (IOException error) when (error.HResult == Interrupted)
        {
            // A signal came in between.
            Sync(directory);
        }
        catch (IOException error)
        {
            throw new StorageException(directory, $"The host cannot write the names in '{directory}' to the disk: {error.Message} Look at its log.");
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

    /// <summary>The size of the disk that an image holds, as it says itself.</summary>
    /// <exception cref="DiskImageException">It is missing or unreadable.</exception>
    internal long SizeOf(string name)
    {
        using ImageFile file = ImageFile.Open(PathOf(name), isReadOnly: true, Files.Layer);
        return Qcow2Header.Read(file).Size;
    }

    internal static string NewName(string suffix = OverlaySuffix) => $"{Guid.NewGuid():D}{suffix}";

    /// <summary>Whether a file is an image that was made here, by its name.</summary>
    internal static bool IsImage(string name) => IsImage(name, OverlaySuffix) || IsImage(name, RawSuffix);

    /// <summary>Whether a file is an image of a kind that was made here, by its name.</summary>
    internal static bool IsImage(string name, string suffix) =>
        name.EndsWith(suffix, StringComparison.Ordinal) && Guid.TryParseExact(name.AsSpan(0, name.Length - suffix.Length), "D", out _);

    internal string PathOf(string name) => System.IO.Path.Combine(Path, name);

    /// <summary>Notes a new image, which nobody needs yet.</summary>
    internal void Add(string name, string? backing)
    {
        lock (_lock)
        {
            _images.Add(name, new Image(backing) { IsCounted = true, IsWhole = true });
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
            List<Image> found = [];
            for (string? next = name; next is not null;)
            {
                // One that is there may be above another that was not: whoever needs that is told as well.
                if (_images.TryGetValue(next, out Image? image))
                {
                    if (image.IsWhole)
                    {
                        break;
                    }
                }
                else
                {
                    (string? backing, bool isDirty) = ReadHeader(next);
                    image = new Image(backing) { IsDirty = isDirty };
                    _images.Add(next, image);
                    _unchecked.Add(next);
                }

                found.Add(image);
                next = image.Backing;
            }

            found.ForEach(static image => image.IsWhole = true);
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
    /// <returns>Whether there is an image that only one needs from now on, which may be put together with others.</returns>
    internal bool Release(string name)
    {
        List<string> unused = [];
        bool isForOne = false;
        lock (_files)
        {
            lock (_lock)
            {
                for (string? next = name; next is not null && _images.TryGetValue(next, out Image? image);)
                {
                    if (--image.Holds > 0)
                    {
                        isForOne = image.Holds == 1;
                        break;
                    }

                    _images.Remove(next);
                    unused.Add(next);
                    next = image.Backing;
                }
            }

            unused.ForEach(Delete);
        }

        return isForOne;
    }

    /// <summary>Completes what a crash, or an error of the host, has left incomplete of images that nobody writes to any more. Those that somebody has open are left alone.</summary>
    /// <exception cref="DiskImageException">One of them is corrupt.</exception>
    /// <exception cref="BlockDeviceException">The host cannot read or write one of them.</exception>
    internal void Repair(string name, IReadOnlyCollection<string> outside)
    {
        for (string? next = name; next?.EndsWith(OverlaySuffix, StringComparison.Ordinal) is true;)
        {
            bool isDirty;
            using (ImageFile? file = TryOpenClosed(next))
            {
                isDirty = file is not null && Qcow2Header.Read(file).IsDirty;
            }

            if (isDirty)
            {
                Complete(next, outside);
            }

            lock (_lock)
            {
                next = _images.TryGetValue(next, out Image? image) ? image.Backing : null;
            }
        }
    }

    /// <summary>
    /// The same of images that were found and that nobody has opened since, so that they are what their headers said then: none is read again, and each is looked at once,
    /// however many chains it is part of.
    /// </summary>
    /// <exception cref="DiskImageException">One of them is corrupt.</exception>
    /// <exception cref="BlockDeviceException">The host cannot read or write one of them.</exception>
    internal void RepairFound(string name, IReadOnlyCollection<string> outside)
    {
        List<Image> seen = [];
        for (string? next = name; next is not null;)
        {
            Image image;
            lock (_lock)
            {
                image = _images[next];
            }

            if (image.IsSettled)
            {
                break;
            }

            if (image.IsDirty)
            {
                Complete(next, outside);
                image.IsDirty = false;
            }

            seen.Add(image);
            next = image.Backing;
        }

        seen.ForEach(static image => image.IsSettled = true);
    }

    /// <summary>Whether an image of a chain was closed and could not be completed.</summary>
    internal bool IsIncomplete(string name) => Layers.IsAnyIncomplete(ChainOf(name).Select(PathOf));

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
    /// <exception cref="StorageException">The host refused.</exception>
    internal StoredStream? HoldOrCreate(string name)
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

            return new StoredStream(Files, name, Files.CreateNew(name));
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
            return Layers.Find(PathOf(name)) is { } layer ? new ImageStream(layer) : new ImageStream(ImageFile.Open(PathOf(name), isReadOnly: true, Files.Layer));
        }
    }

    /// <summary>Whether an image was found on the disk, and nobody has looked into it yet.</summary>
    internal bool IsUnchecked(string name)
    {
        lock (_lock)
        {
            return _unchecked.Contains(name);
        }
    }

    internal void NoteChecked(string name)
    {
        lock (_lock)
        {
            _unchecked.Remove(name);
        }
    }

    /// <summary>Opens an image to read it as a file, unless somebody has it open: what is in memory of it then may not be in the file.</summary>
    /// <exception cref="DiskImageException">There is none.</exception>
    internal ImageFile? TryOpenClosed(string name)
    {
        lock (Layers.Lock)
        {
            return Layers.Has(PathOf(name)) ? null : ImageFile.Open(PathOf(name), isReadOnly: true, Files.Layer);
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
                if (Files.Stat(next) is not { IsDirectory: false } file || (count > 0 && file.Length > (bytes * MuchLarger) + SmallBytes))
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

    /// <summary>Deletes the images that no volume needs, which a crash has left behind. What others have put there stays.</summary>
    internal void DeleteUnknown()
    {
        IReadOnlyList<string> names;
        try
        {
            names = Files.List("");
        }
        catch (StorageException error)
        {
            // They go at the next start.
            _logger.ImageNotDeleted(error, Path);
            return;
        }

        foreach (string name in names)
        {
            bool isImage = IsImage(name);
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

    private static ImageDirectory OpenTemporary(ILogger logger)
    {
        try
        {
            DataFiles files = new(HostFileLayer.Default, Directory.CreateTempSubdirectory("unikraft-volumes-").FullName, isSynced: false);
            return new ImageDirectory(files, files.TryLock(LockName)!, isTemporary: true, logger);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            string shown = System.IO.Path.GetTempPath();
            throw new StorageException(shown, $"The directory of volumes '{shown}' cannot be used: {error.Message} Close it where it is open, or choose another one.");
        }
    }

    private void Complete(string name, IReadOnlyCollection<string> outside) =>
        ImageChain.Open(PathOf(name), isReadOnly: false, Path, Layers, outside: outside).Release();

    private (string? Backing, bool IsDirty) ReadHeader(string name)
    {
        if (!name.EndsWith(OverlaySuffix, StringComparison.Ordinal))
        {
            return Files.Stat(name) is { IsDirectory: false } ? (null, false) : throw Missing(name);
        }

        using ImageFile file = ImageFile.Open(PathOf(name), isReadOnly: true, Files.Layer);
        Qcow2Header header = Qcow2Header.Read(file);
        if (header.Identity is { } identity && !name.StartsWith(identity.ToString("D"), StringComparison.Ordinal))
        {
            throw new DiskImageException(
                DiskImageError.Corrupt,
                PathOf(name),
                $"The disk image '{PathOf(name)}' is another one, which was made as '{identity:D}{OverlaySuffix}'. Put a sound copy of the right one there.");
        }

        string? backing = header.BackingFile;

        // What is elsewhere is not ours to delete.
        return (backing is null || backing.Contains('/', StringComparison.Ordinal) ? null : backing, header.IsDirty);
    }

    private DiskImageException Missing(string name) =>
        new(DiskImageError.Unreadable, PathOf(name), $"There is no disk image '{PathOf(name)}'.");

    private void Delete(string name)
    {
        try
        {
            Files.Delete(name);
        }
        catch (StorageException error)
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

        /// <summary>Whether it and all beneath are known.</summary>
        internal bool IsWhole { get; set; }

        /// <summary>Whether it was not closed, when it was found.</summary>
        internal bool IsDirty { get; set; }

        /// <summary>Whether it and all beneath were complete, or have been completed, after they were found.</summary>
        internal bool IsSettled { get; set; }
    }
}

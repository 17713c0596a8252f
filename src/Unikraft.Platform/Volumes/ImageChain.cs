using System.Globalization;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <summary>Opens an image with all the images it is based on.</summary>
/// <remarks>
/// An image is hostile input, and the names of backing files are part of it: they are followed only to plain files in one directory, and only
/// when the image says what format they have, since a guest can make a raw disk look like anything.
/// </remarks>
internal static class ImageChain
{
    internal const int MaxDepth = 256;

    /// <summary>Opens a qcow2 image and its backing files.</summary>
    /// <param name="path">The image.</param>
    /// <param name="isReadOnly">Whether it is only read. Its backing files always are.</param>
    /// <param name="backingRoot">The directory that backing files have to be in, at any depth; the image's own by default.</param>
    /// <param name="layers">Where open images are found and noted.</param>
    /// <param name="cacheBytes">How much of the mapping of each image may be in memory.</param>
    /// <param name="outside">Backing files that may be outside the directory: whoever made the volume has named them.</param>
    /// <exception cref="DiskImageException">One of the files cannot be used.</exception>
    /// <exception cref="BlockDeviceException">The host cannot read or write one of the files.</exception>
    internal static Qcow2Image Open(
        string path,
        bool isReadOnly,
        string? backingRoot = null,
        OpenLayers? layers = null,
        int cacheBytes = Qcow2Image.DefaultCacheBytes,
        IReadOnlyCollection<string>? outside = null)
    {
        layers ??= new OpenLayers();
        string full = System.IO.Path.GetFullPath(path);
        string root = System.IO.Path.GetFullPath(backingRoot ?? System.IO.Path.GetDirectoryName(full)!);
        lock (layers.Lock)
        {
            return (Qcow2Image)new Opening(layers, root, outside ?? [], cacheBytes).OpenLayer(full, Qcow2Image.FormatName, isReadOnly);
        }
    }

    private static string Resolve(string path, string name, string root, IReadOnlyCollection<string> outside)
    {
        // QEMU takes what comes before a colon for a protocol.
        int colon = name.IndexOf(':', StringComparison.Ordinal);
        int slash = name.IndexOf('/', StringComparison.Ordinal);
        if (colon >= 0 && (slash < 0 || colon < slash))
        {
            throw Refused(path, "names a backing file that is not a file of this host");
        }

        string full = System.IO.Path.GetFullPath(System.IO.Path.Combine(System.IO.Path.GetDirectoryName(path)!, name));
        if (outside.Contains(full, StringComparer.Ordinal))
        {
            return full;
        }

        if (!full.StartsWith(root.EndsWith('/') ? root : root + '/', StringComparison.Ordinal))
        {
            throw Refused(path, $"names a backing file outside '{root}'");
        }

        // A link could lead anywhere.
        for (string part = full; part.Length > root.Length; part = System.IO.Path.GetDirectoryName(part)!)
        {
            if (new FileInfo(part).LinkTarget is not null)
            {
                throw Refused(path, "names a backing file behind a symbolic link");
            }
        }

        return full;
    }

    private static DiskImageException Refused(string path, string why) => new(
        DiskImageError.BackingFileRefused,
        path,
        $"The disk image '{path}' {why}. Or make one image of the chain with qemu-img convert -O qcow2.");

    /// <summary>One chain that is being opened.</summary>
    private sealed class Opening(OpenLayers layers, string root, IReadOnlyCollection<string> outside, int cacheBytes)
    {
        private readonly HashSet<string> _seen = new(StringComparer.Ordinal);

        internal BlockLayer OpenLayer(string path, string format, bool isReadOnly)
        {
            if (!_seen.Add(path) || _seen.Count > MaxDepth)
            {
                throw Refused(path, _seen.Count > MaxDepth
                    ? string.Create(CultureInfo.InvariantCulture, $"has more than {MaxDepth} images beneath it")
                    : "is its own backing file, directly or through others");
            }

            if (isReadOnly && layers.Find(path) is { } open)
            {
                if (string.Equals(open.Format, format, StringComparison.Ordinal))
                {
                    return open;
                }

                open.Release();
                throw Refused(path, $"is open as {open.Format} and cannot be opened as {format} as well");
            }

            ImageFile file = ImageFile.Open(path, isReadOnly, layers.Files);
            BlockLayer? backing = null;
            try
            {
                BlockLayer layer;
                if (string.Equals(format, RawLayer.FormatName, StringComparison.Ordinal))
                {
                    layer = new RawLayer(file);
                }
                else
                {
                    Qcow2Header header = Qcow2Header.Read(file);
                    backing = header.BackingFile is null ? null : OpenBacking(path, header.BackingFile, header.BackingFormat);
                    layer = Qcow2Image.Open(file, header, backing, cacheBytes);
                }

                layers.Add(layer);
                return layer;
            }
            catch
            {
                backing?.Release();
                file.Dispose();
                throw;
            }
        }

        private BlockLayer OpenBacking(string path, string name, string? format)
        {
            string backing = Resolve(path, name, root, outside);
            return format is RawLayer.FormatName or Qcow2Image.FormatName
                ? OpenLayer(backing, format, isReadOnly: true)
                : throw Refused(path, format is null
                    ? "does not say which format its backing file has: qemu-img rebase -u -F adds it"
                    : "has a backing file that is neither qcow2 nor raw: convert that one");
        }
    }
}

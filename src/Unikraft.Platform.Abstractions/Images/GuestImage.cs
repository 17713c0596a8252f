using System.Diagnostics.CodeAnalysis;

namespace Unikraft.Platform;

/// <summary>What an instance boots: a guest image, named and pinned.</summary>
/// <remarks>
/// The content is read once, when it is first needed, and pinned from then on: an instance that restarts boots the
/// same bytes, even if the file has changed meanwhile. A path converts to an image implicitly. Which formats are understood is up to the
/// backend, which recognises them by content.
/// </remarks>
public sealed class GuestImage
{
    private readonly Func<CancellationToken, Task<GuestImageContent>> _read;
    private GuestImageContent? _content;

    private GuestImage(string name, Func<CancellationToken, Task<GuestImageContent>> read)
    {
        Name = name;
        _read = read;
    }

    /// <summary>The name shown for the image: the path it was made from, or the name given with its bytes.</summary>
    public string Name { get; }

    /// <summary>
    /// Refers to an image in a file or a directory. Nothing is read yet. A directory holds <c>kernel</c>, and as it needs them <c>initrd</c> and
    /// <c>cmdline</c>; or it is an OCI image layout as Unikraft's tools write it, which may also be a tar file.
    /// </summary>
    /// <param name="path">The file or directory.</param>
    /// <exception cref="ArgumentException">The path is null or empty.</exception>
    public static GuestImage FromFile(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string full = Path.GetFullPath(path);
        return new GuestImage(path, cancellationToken => ImageFiles.ReadAsync(path, full, cancellationToken));
    }

    /// <summary>Refers to a kernel in a file, and what it is booted with. Nothing is read yet.</summary>
    /// <param name="kernel">The file of the kernel.</param>
    /// <param name="initrd">The file of its initial RAM disk. Default: none.</param>
    /// <param name="commandLine">Its command line, to which arguments are added. Default: that of the backend.</param>
    /// <exception cref="ArgumentException">A path is empty, or that of the kernel null.</exception>
    public static GuestImage FromKernel(string kernel, string? initrd = null, string? commandLine = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(kernel);
        string path = Path.GetFullPath(kernel);
        string? initrdPath = initrd is null ? null : Path.GetFullPath(initrd);
        return new GuestImage(kernel, cancellationToken => ImageFiles.ReadKernelAsync(path, initrdPath, commandLine, cancellationToken));
    }

    /// <summary>Makes an image from parts in memory. They must not be changed afterwards.</summary>
    /// <param name="name">A name to show for the image.</param>
    /// <param name="content">The parts.</param>
    /// <exception cref="ArgumentException">The name is null or empty, or there is no content.</exception>
    public static GuestImage FromContent(string name, GuestImageContent content)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(content);
        return new GuestImage(name, _ => Task.FromResult(content)) { _content = content };
    }

    /// <summary>Makes an image from bytes in memory. They must not be changed afterwards.</summary>
    /// <param name="name">A name to show for the image.</param>
    /// <param name="content">The image.</param>
    /// <exception cref="ArgumentException">The name is null or empty.</exception>
    public static GuestImage FromBytes(string name, ReadOnlyMemory<byte> content) => FromContent(name, new GuestImageContent(content));

    /// <summary>Refers to an image that somebody else keeps. Nothing is read yet.</summary>
    /// <param name="name">A name to show for the image.</param>
    /// <param name="read">Reads it. An <see cref="IOException"/> becomes an <see cref="ImageException"/>; the result must not be changed afterwards.</param>
    /// <exception cref="ArgumentException">The name is null or empty.</exception>
    public static GuestImage FromReader(string name, Func<CancellationToken, ValueTask<GuestImageContent>> read)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(read);
        return new GuestImage(name, cancellationToken => read(cancellationToken).AsTask());
    }

    /// <inheritdoc cref="FromFile(string)"/>
    [SuppressMessage("Usage", "CA2225:Operator overloads have named alternates", Justification = "FromFile is the named alternate.")]
    public static implicit operator GuestImage(string path) => FromFile(path);

    /// <summary>Reads the kernel or flat guest, or returns what was read before.</summary>
    /// <param name="cancellationToken">Cancels the reading; a later call starts over.</param>
    /// <exception cref="ImageException">A file does not exist, cannot be read or is not what it should be.</exception>
    public async ValueTask<ReadOnlyMemory<byte>> ReadAsync(CancellationToken cancellationToken = default) =>
        (await ReadContentAsync(cancellationToken).ConfigureAwait(false)).Kernel;

    /// <summary>Reads all parts of the image, or returns what was read before.</summary>
    /// <param name="cancellationToken">Cancels the reading; a later call starts over.</param>
    /// <exception cref="ImageException">A file does not exist, cannot be read or is not what it should be.</exception>
    public async ValueTask<GuestImageContent> ReadContentAsync(CancellationToken cancellationToken = default)
    {
        if (_content is { } pinned)
        {
            return pinned;
        }

        try
        {
            // Of two readers at once the first one pins, and both see the same bytes.
            GuestImageContent mine = await _read(cancellationToken).ConfigureAwait(false);
            return Interlocked.CompareExchange(ref _content, mine, null) ?? mine;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ImageException(ImageError.Unreadable, Name, $"Cannot read the image '{Name}': {error.Message}", error);
        }
    }

    /// <summary>The name of the image.</summary>
    public override string ToString() => Name;
}

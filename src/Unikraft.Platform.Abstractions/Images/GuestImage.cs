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
    private readonly Func<CancellationToken, ValueTask<ReadOnlyMemory<byte>>>? _read;
    private Pinned? _content;

    private GuestImage(string name, Func<CancellationToken, ValueTask<ReadOnlyMemory<byte>>>? read, Pinned? content)
    {
        Name = name;
        _read = read;
        _content = content;
    }

    /// <summary>The name shown for the image: the path it was made from, or the name given with its bytes.</summary>
    public string Name { get; }

    /// <summary>Refers to an image in a file. Nothing is read yet.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="ArgumentException">The path is null or empty.</exception>
    public static GuestImage FromFile(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string full = Path.GetFullPath(path);
        return new GuestImage(
            path,
            async cancellationToken => await File.ReadAllBytesAsync(full, cancellationToken).ConfigureAwait(false),
            content: null);
    }

    /// <summary>Makes an image from bytes in memory. They must not be changed afterwards.</summary>
    /// <param name="name">A name to show for the image.</param>
    /// <param name="content">The image.</param>
    /// <exception cref="ArgumentException">The name is null or empty.</exception>
    public static GuestImage FromBytes(string name, ReadOnlyMemory<byte> content)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        return new GuestImage(name, read: null, new Pinned(content));
    }

    /// <summary>Refers to an image that somebody else keeps. Nothing is read yet.</summary>
    /// <param name="name">A name to show for the image.</param>
    /// <param name="read">Reads it. An <see cref="IOException"/> becomes an <see cref="ImageException"/>; the result must not be changed afterwards.</param>
    /// <exception cref="ArgumentException">The name is null or empty.</exception>
    public static GuestImage FromReader(string name, Func<CancellationToken, ValueTask<ReadOnlyMemory<byte>>> read)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(read);
        return new GuestImage(name, read, content: null);
    }

    /// <inheritdoc cref="FromFile(string)"/>
    [SuppressMessage("Usage", "CA2225:Operator overloads have named alternates", Justification = "FromFile is the named alternate.")]
    public static implicit operator GuestImage(string path) => FromFile(path);

    /// <summary>Reads the image, or returns what was read before.</summary>
    /// <param name="cancellationToken">Cancels the reading; a later call starts over.</param>
    /// <exception cref="ImageException">The file does not exist or cannot be read.</exception>
    public async ValueTask<ReadOnlyMemory<byte>> ReadAsync(CancellationToken cancellationToken = default)
    {
        if (_content is { } pinned)
        {
            return pinned.Bytes;
        }

        try
        {
            ReadOnlyMemory<byte> read = await _read!(cancellationToken).ConfigureAwait(false);
            // Of two readers at once the first one pins, and both see the same bytes.
            Pinned mine = new(read);
            return (Interlocked.CompareExchange(ref _content, mine, null) ?? mine).Bytes;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ImageException(ImageError.Unreadable, Name, $"Cannot read the image '{Name}': {error.Message}", error);
        }
    }

    /// <summary>The name of the image.</summary>
    public override string ToString() => Name;

    private sealed record Pinned(ReadOnlyMemory<byte> Bytes);
}

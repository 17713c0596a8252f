using System.Security.Cryptography;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// The checksums of images that do not change any more. Each is computed once, and again when the host says that the file has changed, or when nothing is to be trusted.
/// </summary>
/// <remarks>Safe for concurrent use.</remarks>
internal sealed class ImageChecksums(ImageDirectory images)
{
    private const int ReadSize = 1 << 20;

    private readonly Lock _lock = new();
    private readonly Dictionary<string, (long Length, DateTime Written, string Sha256)> _known = new(StringComparer.Ordinal);

    /// <summary>The images that a top consists of, itself first.</summary>
    /// <exception cref="DiskImageException">One of them is missing, or cannot be read.</exception>
    internal IReadOnlyList<ImageChecksum> Describe(string top, CancellationToken cancellationToken) =>
        [.. images.ChainOf(top).Select(name => Compute(name, isTrusting: true, progress: null, cancellationToken))];

    /// <summary>The checksum of an image as it is now.</summary>
    /// <param name="name">The image.</param>
    /// <param name="isTrusting">Whether a file is taken for unchanged of which the host says so.</param>
    /// <param name="progress">Told how much of it has been read.</param>
    /// <param name="cancellationToken">Cancels the reading.</param>
    /// <exception cref="DiskImageException">It is missing, or cannot be read.</exception>
    internal ImageChecksum Compute(string name, bool isTrusting, IProgress<SnapshotProgress>? progress, CancellationToken cancellationToken)
    {
        string path = images.PathOf(name);
        try
        {
            if (images.Files.Stat(name) is not { IsDirectory: false, Length: var length, WrittenAt: var written })
            {
                throw new DiskImageException(DiskImageError.Unreadable, path, $"There is no disk image '{path}'.");
            }

            lock (_lock)
            {
                if (isTrusting && _known.TryGetValue(name, out (long Length, DateTime Written, string Sha256) known) && (known.Length, known.Written) == (length, written))
                {
                    return new ImageChecksum(name, length, known.Sha256);
                }
            }

            string sha256 = Hash(name, length, progress, cancellationToken);
            lock (_lock)
            {
                _known[name] = (length, written, sha256);
            }

            return new ImageChecksum(name, length, sha256);
        }
        catch (Exception error) when (error is StorageException or BlockDeviceException)
        {
            throw new DiskImageException(DiskImageError.Unreadable, path, $"The disk image '{path}' cannot be read: {error.Message}", error);
        }
    }

    /// <summary>Forgets an image that is gone.</summary>
    internal void Forget(string name)
    {
        lock (_lock)
        {
            _known.Remove(name);
        }
    }

    private string Hash(string name, long length, IProgress<SnapshotProgress>? progress, CancellationToken cancellationToken)
    {
        using ImageStream file = images.OpenAsFile(name);
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] buffer = new byte[ReadSize];
        long done = 0;
        for (int read; (read = file.Read(buffer.AsSpan())) > 0;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            hash.AppendData(buffer, 0, read);
            done += read;
            progress?.Report(new SnapshotProgress(done, length));
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}

using System.Formats.Tar;

namespace Unikraft.Platform.Storage.Archives;

/// <summary>Writes an archive: a directory or a tar file, which is there when it is complete.</summary>
internal sealed class ArchiveWriter : IDisposable
{
    private readonly string _path;
    private readonly string _temporary;
    private readonly HashSet<string> _written = new(StringComparer.Ordinal);
    private readonly TarWriter? _tar;
    private bool _isComplete;

    /// <exception cref="StorageException">The path exists, or the host refused.</exception>
    internal ArchiveWriter(string path)
    {
        _path = path;
        _temporary = $"{path}.{Guid.NewGuid():N}{DataFiles.TemporarySuffix}";
        if (File.Exists(path) || Directory.Exists(path))
        {
            throw new StorageException(path, $"'{path}' exists. Choose another path, or remove it.");
        }

        try
        {
            if (path.EndsWith(".tar", StringComparison.OrdinalIgnoreCase))
            {
                _tar = new TarWriter(File.Create(_temporary), TarEntryFormat.Pax);
            }
            else
            {
                Directory.CreateDirectory(Path.Combine(_temporary, "blobs", "sha256"));
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new StorageException(path, $"Writing '{path}' failed: {error.Message}");
        }
    }

    /// <summary>Writes a file, unless it was written before.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void Add(string name, Stream content)
    {
        if (!_written.Add(name))
        {
            return;
        }

        try
        {
            if (_tar is not null)
            {
                _tar.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, name)
                {
                    DataStream = content,
                    ModificationTime = DateTimeOffset.UnixEpoch,
                    Mode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
                });
                return;
            }

            using FileStream file = File.Create(Path.Combine(_temporary, name));
            content.CopyTo(file);
            file.Flush(flushToDisk: true);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new StorageException(_path, $"Writing '{_path}' failed: {error.Message}", error.HResult == 28);
        }
    }

    internal void Add(string name, byte[] content)
    {
        using MemoryStream stream = new(content);
        Add(name, stream);
    }

    /// <summary>Everything was added: the archive gets its name.</summary>
    internal void Complete()
    {
        _tar?.Dispose();
        try
        {
            if (_tar is null)
            {
                Directory.Move(_temporary, _path);
            }
            else
            {
                using (FileStream file = new(_temporary, FileMode.Open, FileAccess.ReadWrite))
                {
                    file.Flush(flushToDisk: true);
                }

                File.Move(_temporary, _path);
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new StorageException(_path, $"Writing '{_path}' failed: {error.Message}");
        }

        _isComplete = true;
    }

    public void Dispose()
    {
        if (_isComplete)
        {
            return;
        }

        _tar?.Dispose();
        try
        {
            if (_tar is null)
            {
                Directory.Delete(_temporary, recursive: true);
            }
            else
            {
                File.Delete(_temporary);
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // It is named as temporary; the failure that led here is the one to report.
        }
    }
}

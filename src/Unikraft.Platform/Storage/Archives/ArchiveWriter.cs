using System.Formats.Tar;

namespace Unikraft.Platform.Storage.Archives;

/// <summary>Writes an archive: a directory or a tar file, which is there when it is complete, and on the disk then.</summary>
internal sealed class ArchiveWriter : IDisposable
{
    private const string Folder = "blobs";

    private readonly string _path;
    private readonly string _name;
    private readonly string _temporary;
    private readonly DataFiles _files;
    private readonly CancellationToken _cancellation;
    private readonly HashSet<string> _written = new(StringComparer.Ordinal);
    private readonly StoredStream? _file;
    private readonly TarWriter? _tar;
    private bool _isComplete;

    /// <param name="path">Where it goes.</param>
    /// <param name="layer">The host's files.</param>
    /// <param name="cancellationToken">Cancels writing, in the middle of a file as well.</param>
    /// <exception cref="StorageException">The path exists, or the host refused.</exception>
    internal ArchiveWriter(string path, IFileLayer layer, CancellationToken cancellationToken)
    {
        _path = path;
        _cancellation = cancellationToken;
        _name = Path.GetFileName(path);
        _temporary = $"{_name}.{Guid.NewGuid():N}{DataFiles.TemporarySuffix}";
        _files = new DataFiles(layer, Path.GetDirectoryName(path)!, isSynced: true);
        if (_files.Stat(_name) is not null)
        {
            throw new StorageException(path, $"'{path}' exists. Choose another path, or remove it.");
        }

        try
        {
            IFile? file = null;
            Run(() =>
            {
                if (path.EndsWith(".tar", StringComparison.OrdinalIgnoreCase))
                {
                    file = _files.Create(_temporary);
                    return;
                }

                _files.MakeDirectory(_temporary);
                _files.MakeDirectory(Path.Combine(_temporary, Folder));
                _files.MakeDirectory(Path.Combine(_temporary, Folder, CheckpointArchive.DigestFolder));
            });
            if (file is not null)
            {
                _file = new StoredStream(_files, _temporary, file, cancellationToken);
                _tar = new TarWriter(_file, TarEntryFormat.Pax, leaveOpen: true);
            }
        }
        catch
        {
            Remove(_temporary);
            throw;
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

        Run(() =>
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

            string file = Path.Combine(_temporary, name);
            using StoredStream stream = new(_files, file, _files.Create(file), _cancellation);
            content.CopyTo(stream);
            stream.Sync();
        });
    }

    internal void Add(string name, byte[] content)
    {
        using MemoryStream stream = new(content);
        Add(name, stream);
    }

    /// <summary>Everything was added: the archive gets its name.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void Complete()
    {
        Run(() =>
        {
            if (_tar is not null)
            {
                _tar.Dispose();
                _file!.Sync();
                _file.Dispose();
            }
            else
            {
                _files.SyncDirectory(_files.PathOf(Path.Combine(_temporary, Folder, CheckpointArchive.DigestFolder)));
                _files.SyncDirectory(_files.PathOf(Path.Combine(_temporary, Folder)));
                _files.SyncDirectory(_files.PathOf(_temporary));
            }

            _files.Rename(_temporary, _name);
            try
            {
                _files.SyncDirectory(_files.Root);
            }
            catch
            {
                Remove(_name);
                throw;
            }

            _isComplete = true;
        });
    }

    public void Dispose()
    {
        if (_isComplete)
        {
            return;
        }

        try
        {
            // It writes the end of the archive.
            _tar?.Dispose();
        }
        catch (Exception error) when (error is StorageException or OperationCanceledException)
        {
            // The failure that led here is the one to report.
        }

        _file?.Dispose();
        Remove(_temporary);
    }

    // It is named as temporary: what cannot be removed is told from an archive.
    private void Remove(string name)
    {
        try
        {
            switch (_files.Stat(name))
            {
                case { IsDirectory: true }:
                    _files.DeleteDirectory(name);
                    break;
                case not null:
                    _files.Delete(name);
                    break;
            }
        }
        catch (StorageException)
        {
            // The failure that led here is the one to report.
        }
    }

    private void Run(Action write)
    {
        try
        {
            write();
        }
        catch (StorageException error)
        {
            throw new StorageException(_path, $"The archive '{_path}' was not written. {error.Message}", error.IsFull);
        }
    }
}

using System.Formats.Tar;

namespace Unikraft.Platform.Storage.Archives;

/// <summary>An archive in a tar file.</summary>
internal sealed class TarArchive : IArchiveReader
{
    private const int MaxEntries = 1 << 20;

    private readonly DataFiles _files;
    private readonly string _name;
    private readonly Dictionary<string, (long Offset, long Length)> _entries = new(StringComparer.Ordinal);

    /// <exception cref="InvalidDataException">It is not a tar file.</exception>
    /// <exception cref="StorageException">The host cannot read it.</exception>
    internal TarArchive(DataFiles files, string name)
    {
        (_files, _name) = (files, name);
        using StoredStream file = Open();
        using TarReader reader = new(file, leaveOpen: true);
        while (Next(reader) is { } entry)
        {
            if (entry.EntryType is TarEntryType.RegularFile or TarEntryType.V7RegularFile && entry.DataOffset >= 0)
            {
                string path = entry.Name.StartsWith("./", StringComparison.Ordinal) ? entry.Name[2..] : entry.Name;
                if (entry.DataOffset + entry.Length > file.Length || !_entries.TryAdd(path, (entry.DataOffset, entry.Length)) || _entries.Count > MaxEntries)
                {
                    throw new InvalidDataException($"The entry '{path}' is there twice, or longer than the file");
                }
            }
        }
    }

    public Stream? Open(string name) => _entries.TryGetValue(name, out (long Offset, long Length) entry)
        ? new Part(Open(), entry.Offset, entry.Length)
        : null;

    public void Dispose()
    {
        // Each stream has the file open for itself.
    }

    private static TarEntry? Next(TarReader reader)
    {
        try
        {
            return reader.GetNextEntry();
        }
        catch (InvalidOperationException error)
        {
            // So it calls sizes that no entry of the kind has.
            throw new InvalidDataException(error.Message, error);
        }
    }

    private StoredStream Open() => new(
        _files,
        _name,
        _files.TryOpenToRead(_name) ?? throw new InvalidDataException($"'{_files.PathOf(_name)}' is not there any more"));

    private sealed class Part : Stream
    {
        private readonly StoredStream _file;
        private readonly long _length;
        private long _read;

        internal Part(StoredStream file, long offset, long length)
        {
            _file = file;
            _length = length;
            _file.Position = offset;
        }

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => _length;

        public override long Position
        {
            get => _read;
            set => throw new NotSupportedException();
        }

        public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

        public override int Read(Span<byte> buffer)
        {
            int read = _file.Read(buffer[..(int)Math.Min(buffer.Length, _length - _read)]);
            _read += read;
            return read;
        }

        public override void Flush()
        {
            // Nothing is written.
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                _file.Dispose();
            }

            base.Dispose(disposing);
        }
    }
}

namespace Unikraft.Platform.Storage;

/// <summary>A file as a stream that has it for itself.</summary>
/// <param name="files">Where it is.</param>
/// <param name="name">Its name there.</param>
/// <param name="file">The file, which is closed with the stream.</param>
/// <param name="writing">Cancels writing to it.</param>
internal sealed class StoredStream(DataFiles files, string name, IFile file, CancellationToken writing = default) : Stream
{
    private long _position;

    public override bool CanRead => true;

    public override bool CanSeek => true;

    public override bool CanWrite => true;

    public override long Length => file.Length;

    public override long Position
    {
        get => _position;
        set => _position = value;
    }

    public override int Read(byte[] buffer, int offset, int count)
    {
        int read = files.Read(name, file, _position, buffer.AsMemory(offset, count));
        _position += read;
        return read;
    }

    public override void Write(byte[] buffer, int offset, int count)
    {
        writing.ThrowIfCancellationRequested();
        files.Write(name, file, _position, buffer.AsMemory(offset, count));
        _position += count;
    }

    /// <summary>Returns when the file is on the disk.</summary>
    public void Sync() => files.Sync(name, file);

    public override void Flush()
    {
        // Nothing is kept in here.
    }

    public override long Seek(long offset, SeekOrigin origin) => _position = origin switch
    {
        SeekOrigin.Begin => offset,
        SeekOrigin.Current => _position + offset,
        _ => Length + offset,
    };

    public override void SetLength(long value) => files.SetLength(name, file, value);

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            file.Dispose();
        }

        base.Dispose(disposing);
    }
}

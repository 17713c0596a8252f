namespace Unikraft.Platform.Volumes;

/// <summary>An image that does not change any more, as the bytes of its file.</summary>
internal sealed class ImageStream : Stream
{
    private readonly IImageFile _file;
    private readonly BlockLayer? _layer;

    internal ImageStream(IImageFile file) => _file = file;

    internal ImageStream(BlockLayer layer) => (_file, _layer) = (layer.File, layer);

    public override bool CanRead => true;

    public override bool CanSeek => true;

    public override bool CanWrite => false;

    public override long Length => _file.Length;

    public override long Position { get; set; }

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override int Read(Span<byte> buffer)
    {
        int read = _file.Read(Position, buffer);
        Position += read;
        return read;
    }

    public override long Seek(long offset, SeekOrigin origin) => Position = origin switch
    {
        SeekOrigin.Begin => offset,
        SeekOrigin.Current => Position + offset,
        _ => Length + offset,
    };

    public override void Flush()
    {
        // Nothing is written.
    }

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            if (_layer is not null)
            {
                _layer.Release();
            }
            else
            {
                _file.Dispose();
            }
        }

        base.Dispose(disposing);
    }
}

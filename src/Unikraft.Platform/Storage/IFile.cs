namespace Unikraft.Platform.Storage;

/// <summary>An open file of an <see cref="IFileLayer"/>.</summary>
internal interface IFile : IDisposable
{
    long Length { get; }

    /// <returns>The number of bytes read, possibly fewer than asked for; 0 behind the end.</returns>
    int Read(long offset, Span<byte> buffer);

    /// <returns>The number of bytes written, possibly fewer than asked for.</returns>
    int Write(long offset, ReadOnlySpan<byte> data);

    /// <summary>Cuts the file off, or makes it longer: what is added is zeroes.</summary>
    void SetLength(long length);

    /// <summary>Returns when the file is on the disk.</summary>
    void Sync();
}

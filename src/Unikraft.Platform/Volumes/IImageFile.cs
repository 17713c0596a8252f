namespace Unikraft.Platform.Volumes;

/// <summary>The file a disk image is in. The seam at which tests cut the power, fill the disk and break it.</summary>
/// <remarks>Safe for concurrent use. What fails throws <see cref="BlockDeviceException"/>.</remarks>
internal interface IImageFile : IDisposable
{
    string Path { get; }

    bool IsReadOnly { get; }

    long Length { get; }

    /// <summary>Reads what there is.</summary>
    /// <returns>The number of bytes; fewer than asked for only at the end of the file.</returns>
    int Read(long offset, Span<byte> buffer);

    /// <summary>Writes, beyond the end too: what is skipped reads as zeroes.</summary>
    void Write(long offset, ReadOnlySpan<byte> data);

    void SetLength(long length);

    /// <summary>Makes all writes durable that were complete before the call.</summary>
    void Flush();
}

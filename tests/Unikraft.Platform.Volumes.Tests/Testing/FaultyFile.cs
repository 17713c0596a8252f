namespace Unikraft.Platform.Volumes.Tests.Testing;

/// <summary>A file that fails when a test says so. A write that fails may have been done in part.</summary>
internal sealed class FaultyFile(MemoryImageFile file) : IImageFile
{
    public string Path => file.Path;

    public bool IsReadOnly => false;

    public long Length => file.Length;

    /// <summary>The number of the write that fails; every write after it does too, as long as this is set.</summary>
    internal int? FailingWrite { get; set; }

    internal int? FailingRead { get; set; }

    internal int? FailingFlush { get; set; }

    /// <summary>What fails, and does so once only.</summary>
    internal bool IsTransient { get; set; }

    internal BlockDeviceError Error { get; set; } = BlockDeviceError.InputOutput;

    /// <summary>The file cannot become longer than this.</summary>
    internal long Capacity { get; set; } = long.MaxValue;

    internal int Writes { get; private set; }

    internal int Reads { get; private set; }

    internal int Flushes { get; private set; }

    internal int Failures { get; private set; }

    public void Dispose() => file.Dispose();

    public int Read(long offset, Span<byte> buffer)
    {
        if (Reads++ >= FailingRead)
        {
            FailingRead = IsTransient ? null : FailingRead;
            Fail();
        }

        return file.Read(offset, buffer);
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        if (offset + data.Length > Capacity)
        {
            Error = BlockDeviceError.NoSpace;
            Fail();
        }

        if (Writes++ >= FailingWrite)
        {
            FailingWrite = IsTransient ? null : FailingWrite;
            file.Write(offset, data[..(data.Length / 2)]);
            Fail();
        }

        file.Write(offset, data);
    }

    public void SetLength(long length) => file.SetLength(length);

    public void Flush()
    {
        if (Flushes++ >= FailingFlush)
        {
            FailingFlush = IsTransient ? null : FailingFlush;
            Fail();
        }

        file.Flush();
    }

    internal void SaveTo(string path) => file.SaveTo(path);

    private void Fail()
    {
        Failures++;
        throw new BlockDeviceException(Error, Path, "The test breaks the file.");
    }
}

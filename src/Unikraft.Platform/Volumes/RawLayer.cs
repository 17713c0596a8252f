namespace Unikraft.Platform.Volumes;

/// <summary>A raw image as the base of a chain. Never written to.</summary>
internal sealed class RawLayer(IImageFile file) : BlockLayer
{
    internal const string FormatName = "raw";

    internal override string Path => file.Path;

    internal override IImageFile File => file;

    internal override long Size { get; } = file.Length;

    internal override bool IsFrozen => true;

    internal override string Format => FormatName;

    internal override void Read(long offset, Span<byte> buffer)
    {
        int count = file.Read(offset, buffer);
        if (count < buffer.Length)
        {
            throw new BlockDeviceException(
                BlockDeviceError.Corrupt,
                Path,
                $"The disk image '{Path}' has become shorter than it was when it was opened. Restore it: it must not change while it is in use.");
        }
    }

    internal override void Seal()
    {
    }

    protected override void Close() => file.Dispose();
}

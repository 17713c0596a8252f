using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <summary>An empty image over the top of a volume, open and ready to take its place or to be a clone.</summary>
/// <remarks>For one use. When it is disposed of unused, its file is deleted.</remarks>
internal sealed class PreparedOverlay : IAsyncDisposable
{
    private Qcow2Image? _image;

    internal PreparedOverlay(Qcow2Image image)
    {
        _image = image;
        Cut = new VolumeCut();
    }

    internal string Path => Image.Path;

    internal Qcow2Image Image => _image ?? throw new InvalidOperationException("The overlay is in use already.");

    /// <summary>Made in advance, for nothing is allocated in the pause.</summary>
    internal VolumeCut Cut { get; }

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _image, null) is { } unused)
        {
            await Task.Run(() =>
            {
                try
                {
                    unused.Release();
                }
                finally
                {
                    ImageFile.Discard(unused.Path, unused.Files);
                }
            }).ConfigureAwait(false);
        }
    }

    internal Qcow2Image Take() => Interlocked.Exchange(ref _image, null) ?? throw new InvalidOperationException("The overlay is in use already.");
}

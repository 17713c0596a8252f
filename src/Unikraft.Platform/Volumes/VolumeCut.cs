using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <summary>What a volume was at one moment: an image that does not change any more, and all beneath it.</summary>
/// <remarks>
/// Until whoever keeps the books of the volumes has written down that the volume has another top, and says so with <see cref="Publish"/>, no
/// flush of the volume completes: what was flushed must be found after a crash.
/// </remarks>
internal sealed class VolumeCut : IAsyncDisposable
{
    private readonly TaskCompletionSource _published = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private Qcow2Image? _frozen;
    private Action? _publishAgain;

    /// <summary>The path of the image, also when the image was given up: it may be complete before everybody has heard of it.</summary>
    internal string Path { get; private set; } = "";

    /// <summary>Whether the new top of the volume is written down, durably.</summary>
    internal bool IsPublished => _published.Task.IsCompleted && Volatile.Read(ref _publishAgain) is null;

    internal Qcow2Image Frozen => _frozen ?? throw new ObjectDisposedException(nameof(VolumeCut));

    /// <summary>Gives up the image. Volumes that are based on it keep it.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _frozen, null) is { } frozen)
        {
            await Task.Run(frozen.Release).ConfigureAwait(false);
        }
    }

    /// <summary>The new top of the volume is written down, durably.</summary>
    internal void Publish()
    {
        Volatile.Write(ref _publishAgain, null);
        _ = _published.TrySetResult();
    }

    /// <summary>The new top of the volume could not be written down. Each flush of the volume tries again, and fails when that fails.</summary>
    /// <param name="publishAgain">Writes it down and calls <see cref="Publish"/>. Throws <see cref="BlockDeviceException"/>.</param>
    internal void Defer(Action publishAgain)
    {
        Volatile.Write(ref _publishAgain, publishAgain);
        _ = _published.TrySetResult();
    }

    /// <summary>Completes when the new top of the volume is written down.</summary>
    /// <exception cref="BlockDeviceException">The host still cannot.</exception>
    internal async Task WhenPublishedAsync()
    {
        await _published.Task.ConfigureAwait(false);
        if (Volatile.Read(ref _publishAgain) is { } again)
        {
            await Task.Run(again).ConfigureAwait(false);
        }
    }

    /// <summary>Makes the image durable and consistent as a file of its own. The volume's next flush would do so too.</summary>
    internal Task SealAsync() => Task.Run(Frozen.Seal);

    /// <summary>Creates an empty image over this one.</summary>
    /// <param name="path">Where. Must not exist.</param>
    /// <exception cref="DiskImageException">The file cannot be created.</exception>
    /// <exception cref="BlockDeviceException">The host cannot write it.</exception>
    internal Task<PreparedOverlay> PrepareOverlayAsync(string path) => VolumeDisk.CreateOverlayAsync(Frozen, path);

    internal void Freeze(Qcow2Image top)
    {
        top.Freeze();
        (_frozen, Path) = (top, top.Path);
    }
}

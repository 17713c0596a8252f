using System.Numerics;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// A disk that can be cloned while it is in use: a chain of qcow2 images, of which the top one takes the writes. A cut freezes the top and puts an
/// empty one on it, which takes as long for any size.
/// </summary>
internal sealed class VolumeDisk : IBlockDevice
{
    internal const string Qcow2Format = Qcow2Image.FormatName;

    private readonly RequestGate _gate = new();
    private Qcow2Image _top;
    private VolumeCut? _lastCut;
    private bool _isDisposed;

    private VolumeDisk(Qcow2Image top) => (_top, IsReadOnly) = (top, top.IsFrozen);

    public long Size => Volatile.Read(ref _top).Size;

    public int BlockSize => 512;

    /// <inheritdoc/>
    /// <remarks>Not what the top says of itself: in a cut it is frozen for a moment before there is another one.</remarks>
    public bool IsReadOnly { get; }

    /// <summary>Whether the top that the last cut has put on is written down.</summary>
    internal bool IsPublished => Volatile.Read(ref _lastCut) is not { IsPublished: false };

    /// <summary>The path of the image that takes the writes.</summary>
    internal string TopPath => Volatile.Read(ref _top).Path;

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isDisposed, true))
        {
            return;
        }

        await _gate.HoldAsync(CancellationToken.None).ConfigureAwait(false);
        _gate.Release();
        await Task.Run(_top.Release).ConfigureAwait(false);
    }

    public ValueTask ReadAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        Check(offset, buffer.Length, isWrite: false, cancellationToken);
        if (!_gate.TryEnter())
        {
            return ReadLaterAsync(offset, buffer, cancellationToken);
        }

        try
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
            _top.Read(offset, buffer.Span);
        }
        finally
        {
            _gate.Exit();
        }

        return ValueTask.CompletedTask;
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, CancellationToken cancellationToken = default)
    {
        Check(offset, data.Length, isWrite: true, cancellationToken);
        if (!_gate.TryEnter())
        {
            return WriteLaterAsync(offset, data, cancellationToken);
        }

        try
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
            _top.Write(offset, data.Span);
        }
        finally
        {
            _gate.Exit();
        }

        return ValueTask.CompletedTask;
    }

    public async ValueTask FlushAsync(CancellationToken cancellationToken = default)
    {
        Check(0, 0, isWrite: false, cancellationToken);
        if (IsReadOnly)
        {
            return;
        }

        // A flush changes no contents, so a cut need not wait for one. It is for the top it has found: what it is to make durable is there or beneath. That may have been
        // cut and folded before this thread goes on; then what has taken its place is durable, and there is another top.
        Qcow2Image top;
        VolumeCut? lastCut;
        do
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
            top = Volatile.Read(ref _top);
            lastCut = Volatile.Read(ref _lastCut);
        }
        while (!top.TryShare());

        await Task.Run(
            () =>
            {
                try
                {
                    top.Flush();
                }
                finally
                {
                    top.Release();
                }
            },
            CancellationToken.None).ConfigureAwait(false);
        if (lastCut is not null)
        {
            await lastCut.WhenPublishedAsync().ConfigureAwait(false);
        }
    }

    public ValueTask DiscardAsync(long offset, long length, CancellationToken cancellationToken = default) =>
        ChangeAsync(offset, length, static (top, offset, length) => top.Discard(offset, length), cancellationToken);

    public ValueTask WriteZeroesAsync(long offset, long length, CancellationToken cancellationToken = default) =>
        ChangeAsync(offset, length, static (top, offset, length) => top.WriteZeroes(offset, length), cancellationToken);

    /// <summary>Opens the volume whose top is a file.</summary>
    /// <param name="path">The top image.</param>
    /// <param name="isReadOnly">Whether it is only read.</param>
    /// <param name="backingRoot">The directory that its backing files have to be in; the image's own by default.</param>
    /// <param name="layers">Where open images are found and noted. The volumes of one host share it.</param>
    /// <param name="outside">Backing files that may be outside that directory.</param>
    /// <param name="cancellationToken">Cancels the opening as long as it has not begun.</param>
    /// <exception cref="DiskImageException">One of the files cannot be used.</exception>
    /// <exception cref="BlockDeviceException">The host cannot read or write one of the files.</exception>
    internal static Task<VolumeDisk> OpenAsync(
        string path,
        bool isReadOnly = false,
        string? backingRoot = null,
        OpenLayers? layers = null,
        IReadOnlyCollection<string>? outside = null,
        CancellationToken cancellationToken = default) =>
        Task.Run(() => new VolumeDisk(ImageChain.Open(path, isReadOnly, backingRoot, layers, outside: outside)), cancellationToken);

    /// <summary>The files of the chain, the top first.</summary>
    internal IReadOnlyList<string> ListPaths()
    {
        List<string> paths = [];
        BlockLayer? layer = _top;
        while (layer is not null)
        {
            paths.Add(layer.Path);
            layer = layer is Qcow2Image image ? image.Backing : null;
        }

        return paths;
    }

    /// <summary>Makes a volume of an overlay that nobody uses yet.</summary>
    internal static VolumeDisk Open(PreparedOverlay overlay) => new(overlay.Take());

    /// <summary>Creates an empty volume.</summary>
    /// <param name="path">Where. Must not exist.</param>
    /// <param name="size">The size of the disk in bytes, a multiple of 512.</param>
    /// <param name="clusterBits">The size of the clusters, 12 (4 KiB) to 21 (2 MiB).</param>
    /// <param name="layers">Where open images are noted. The volumes of one host share it.</param>
    /// <param name="cancellationToken">Cancels the creation as long as it has not begun.</param>
    /// <exception cref="DiskImageException">The size is out of range, or the file cannot be created. There is no file then.</exception>
    /// <exception cref="BlockDeviceException">The host cannot write the file. There is no file then.</exception>
    internal static Task<VolumeDisk> CreateAsync(
        string path,
        long size,
        int clusterBits = Qcow2Header.DefaultClusterBits,
        OpenLayers? layers = null,
        CancellationToken cancellationToken = default) =>
        Task.Run(() => new VolumeDisk(Create(path, size, clusterBits, backing: null, layers)), cancellationToken);

    /// <summary>Creates an empty image over the top, for a cut to come. Takes as long for any size.</summary>
    /// <param name="path">Where. Must not exist.</param>
    /// <param name="cancellationToken">Cancels the creation as long as it has not begun.</param>
    /// <exception cref="DiskImageException">The file cannot be created.</exception>
    /// <exception cref="BlockDeviceException">The host cannot write it.</exception>
    internal Task<PreparedOverlay> PrepareOverlayAsync(string path, CancellationToken cancellationToken = default)
    {
        Check(0, 0, isWrite: true, cancellationToken);
        return CreateOverlayAsync(Volatile.Read(ref _top), path);
    }

    /// <summary>Completes when the top that the last cut has put on is written down, which is tried again if it has failed.</summary>
    /// <exception cref="BlockDeviceException">The host still cannot.</exception>
    internal Task WhenPublishedAsync() => Volatile.Read(ref _lastCut)?.WhenPublishedAsync() ?? Task.CompletedTask;

    /// <summary>Holds new requests back and waits for those under way, flushes excepted.</summary>
    /// <param name="cancellationToken">Cancels the waiting; requests go on then.</param>
    internal ValueTask HoldAsync(CancellationToken cancellationToken = default) => _gate.HoldAsync(cancellationToken);

    /// <summary>Lets requests go on.</summary>
    internal void Release() => _gate.Release();

    /// <summary>
    /// Freezes the top and puts an overlay on it that was prepared for it. Requests are held back meanwhile. Neither waits nor allocates.
    /// </summary>
    /// <returns>What the volume was.</returns>
    /// <exception cref="InvalidOperationException">
    /// Requests are not held back, the overlay is for another top or size, or the last cut has not been published.
    /// </exception>
    internal VolumeCut Cut(PreparedOverlay overlay)
    {
        Qcow2Image top = _top;
        if (!_gate.IsClear || overlay.Image.Backing != top || overlay.Image.Size != top.Size || !IsPublished)
        {
            throw new InvalidOperationException(
                "A cut needs requests to be held back, an overlay that was prepared for this top and size, and the last cut to be published.");
        }

        VolumeCut cut = overlay.Cut;
        cut.Freeze(top);

        // In this order: who sees the new top sees what its flushes wait for.
        Volatile.Write(ref _lastCut, cut);
        Volatile.Write(ref _top, overlay.Take());
        return cut;
    }

    /// <summary>
    /// Puts one image in the place of some beneath the top that holds what they held together. The guest goes on meanwhile; whenever it is interrupted the volume is
    /// what it was.
    /// </summary>
    /// <param name="count">How many images, all of one size and one size of clusters.</param>
    /// <param name="path">Where the new image goes. Must not exist; its name is as long as theirs.</param>
    /// <param name="cancellationToken">Cancels the copying. There is no file then.</param>
    /// <returns>False, and nothing is done, when the images differ in size.</returns>
    internal async Task<bool> FoldAsync(int count, string path, CancellationToken cancellationToken)
    {
        Qcow2Image top = Volatile.Read(ref _top);
        List<Qcow2Image> images = [];
        for (BlockLayer? layer = top.Backing; images.Count < count && layer is Qcow2Image image; layer = image.Backing)
        {
            images.Add(image);
        }

        if (images.Count < count || images.Exists(image => image.Size != images[0].Size || image.ClusterSize != images[0].ClusterSize))
        {
            return false;
        }

        Qcow2Image folded = await Task.Run(() => Merge(images, path, cancellationToken), cancellationToken).ConfigureAwait(false);
        BlockLayer before;
        try
        {
            await _gate.HoldAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                before = top.ReplaceBacking(folded);
            }
            finally
            {
                _gate.Release();
            }
        }
        catch
        {
            folded.Release();
            ImageFile.Discard(path, folded.Files);
            throw;
        }

        try
        {
            await StoreBackingNameAsync().ConfigureAwait(false);
        }
        finally
        {
            await Task.Run(before.Release, CancellationToken.None).ConfigureAwait(false);
        }

        return true;
    }

    /// <summary>Writes the name of the image beneath the top into that, durably. Nobody cuts meanwhile.</summary>
    /// <exception cref="BlockDeviceException">The host cannot write.</exception>
    internal Task StoreBackingNameAsync()
    {
        Qcow2Image top = _top;
        return Task.Run(() =>
        {
            top.Registry?.SyncNames?.Invoke();
            top.StoreBackingName();
        });
    }

    /// <summary>Makes the disk larger.</summary>
    /// <param name="size">The new size in bytes, a multiple of 512.</param>
    /// <param name="cancellationToken">Cancels the waiting for requests under way.</param>
    /// <exception cref="DiskImageException">The size is smaller than it was, or out of range.</exception>
    /// <exception cref="BlockDeviceException">The host cannot write, or the volume is read-only.</exception>
    internal async Task ResizeAsync(long size, CancellationToken cancellationToken = default)
    {
        await _gate.HoldAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await Task.Run(() => _top.Resize(size), CancellationToken.None).ConfigureAwait(false);
        }
        finally
        {
            _gate.Release();
        }
    }

    internal static Task<PreparedOverlay> CreateOverlayAsync(Qcow2Image top, string path) => Task.Run(() =>
    {
        BlockLayer backing = top.Share();
        try
        {
            return new PreparedOverlay(Create(path, top.Size, Qcow2Header.DefaultClusterBits, backing, top.Registry));
        }
        catch
        {
            backing.Release();
            throw;
        }
    });

    private static Qcow2Image Create(string path, long size, int clusterBits, BlockLayer? backing, OpenLayers? layers)
    {
        string full = System.IO.Path.GetFullPath(path);
        ImageFile file = ImageFile.Create(full, layers?.Files);
        try
        {
            Qcow2Image image = Qcow2Image.CreateNew(file, size, clusterBits, backing);
            layers?.Add(image);
            return image;
        }
        catch
        {
            file.Dispose();
            ImageFile.Discard(full, layers?.Files ?? HostFileLayer.Default);
            throw;
        }
    }

    private static Qcow2Image Merge(List<Qcow2Image> images, string path, CancellationToken cancellationToken)
    {
        const int MaxPart = 1 << 20;
        Qcow2Image first = images[0];
        BlockLayer? beneath = images[^1].Backing?.Share();
        Qcow2Image merged;
        try
        {
            merged = Create(path, first.Size, BitOperations.Log2((uint)first.ClusterSize), beneath, first.Registry);
        }
        catch
        {
            beneath?.Release();
            throw;
        }

        try
        {
            byte[] buffer = new byte[MaxPart];
            for (long offset = 0; offset < first.Size;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                int length = (int)Math.Min(MaxPart, first.Size - offset);
                ClusterKind kind = ClusterKind.Unallocated;
                Qcow2Image? owner = null;
                for (int i = 0; i < images.Count && owner is null; i++)
                {
                    (kind, int run) = images[i].Find(offset, length);
                    length = Math.Min(length, run);
                    owner = kind == ClusterKind.Unallocated ? null : images[i];
                }

                if (kind == ClusterKind.Zero)
                {
                    merged.WriteZeroes(offset, length);
                }
                else if (owner is not null)
                {
                    owner.Read(offset, buffer.AsSpan(0, length));
                    merged.Write(offset, buffer.AsSpan(0, length));
                }

                offset += length;
            }

            merged.Freeze();
            merged.Seal();
            return merged;
        }
        catch
        {
            try
            {
                merged.Release();
            }
            finally
            {
                // Also when it cannot be completed: it would take room that is missing.
                ImageFile.Discard(path, merged.Files);
            }

            throw;
        }
    }

    private async ValueTask ReadLaterAsync(long offset, Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await _gate.EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
            _top.Read(offset, buffer.Span);
        }
        finally
        {
            _gate.Exit();
        }
    }

    private async ValueTask WriteLaterAsync(long offset, ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
    {
        await _gate.EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
            _top.Write(offset, data.Span);
        }
        finally
        {
            _gate.Exit();
        }
    }

    private async ValueTask ChangeAsync(long offset, long length, Action<Qcow2Image, long, long> change, CancellationToken cancellationToken)
    {
        Check(offset, length, isWrite: true, cancellationToken);
        await _gate.EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
            change(_top, offset, length);
        }
        finally
        {
            _gate.Exit();
        }
    }

    private void Check(long offset, long length, bool isWrite, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
        Qcow2Image top = Volatile.Read(ref _top);
        BlockRange.ThrowIfOutside(top, offset, length);
        if (isWrite && IsReadOnly)
        {
            BlockRange.ThrowReadOnly(top.Path);
        }
    }
}

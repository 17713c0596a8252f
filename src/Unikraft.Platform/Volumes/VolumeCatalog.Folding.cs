using Unikraft.Platform.Diagnostics;

namespace Unikraft.Platform.Volumes;

/// <content>Long chains are made short, in the background and one after the other, while guests go on.</content>
internal sealed partial class VolumeCatalog
{
    private static readonly TimeSpan MinFoldRetry = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan MaxFoldRetry = TimeSpan.FromMinutes(10);

    // Whoever wants the volume need not wait for a fold, which is begun again after that, as long as its chain is not so long.
    private const int MaxPutOff = 32;

    // Guarded by the lock of the catalog.
    private bool _isFolding;
    private long _foldOccasions;
    private TimeSpan _foldRetryDelay;
    private ITimer? _foldRetry;

    /// <summary>Something may have become too long. What cannot be done now is tried again later.</summary>
    public void BeginFold()
    {
        lock (_lock)
        {
            _foldOccasions++;
            if (_isFolding || _platform.Rundown.Closing.IsCancellationRequested)
            {
                return;
            }

            _isFolding = true;
        }

        Begin(FoldAllAsync);
    }

    private async Task FoldAllAsync()
    {
        bool isEnded = false;
        try
        {
            while (!isEnded)
            {
                long occasion = Volatile.Read(ref _foldOccasions);
                bool hasFailed = await FoldEachAsync(_platform.Rundown.Closing).ConfigureAwait(false);

                // Not when there was another occasion meanwhile, whose volume may have been looked at before it.
                isEnded = TryEndFolding(occasion, hasFailed);
            }
        }
        catch (OperationCanceledException) when (_platform.Rundown.Closing.IsCancellationRequested)
        {
            // What was begun is removed, and the chain is as it was.
        }
        finally
        {
            if (!isEnded)
            {
                _ = TryEndFolding(occasion: null, hasFailed: true);
            }
        }
    }

    private bool TryEndFolding(long? occasion, bool hasFailed)
    {
        lock (_lock)
        {
            if (occasion is not null && _foldOccasions != occasion)
            {
                return false;
            }

            _isFolding = false;
            if (!_platform.Rundown.Closing.IsCancellationRequested)
            {
                ScheduleFoldRetry(hasFailed);
            }

            return true;
        }
    }

    // There may be room for it again.
    private bool HasFoldFailed()
    {
        lock (_lock)
        {
            return _foldRetryDelay > TimeSpan.Zero;
        }
    }

    // Under the lock.
    private void ScheduleFoldRetry(bool hasFailed)
    {
        if (!hasFailed)
        {
            _foldRetryDelay = TimeSpan.Zero;
            _foldRetry?.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
            return;
        }

        _foldRetryDelay = TimeSpan.FromTicks(Math.Clamp(2 * _foldRetryDelay.Ticks, MinFoldRetry.Ticks, MaxFoldRetry.Ticks));
        _foldRetry ??= _platform.TimeProvider.CreateDetachedTimer(
            static catalog => ((VolumeCatalog)catalog!).BeginFold(),
            this,
            Timeout.InfiniteTimeSpan,
            Timeout.InfiniteTimeSpan);
        _foldRetry.Change(_foldRetryDelay, Timeout.InfiniteTimeSpan);
    }

    /// <summary>Folds all there is to fold.</summary>
    /// <returns>Whether that has failed for a volume.</returns>
    private async Task<bool> FoldEachAsync(CancellationToken cancellationToken)
    {
        HashSet<StoredVolume> failed = [];
        bool isAnyFolded;
        do
        {
            StoredVolume[] all;
            lock (_lock)
            {
                all = [.. _volumes.All.Where(static volume => volume is { IsListed: true, Failure: null, Record: { IsTemplate: false, Top: not null } })];
            }

            isAnyFolded = false;
            foreach (StoredVolume volume in all.Except(failed))
            {
                try
                {
                    isAnyFolded |= await TryFoldAsync(volume, cancellationToken).ConfigureAwait(false);
                }
                catch (PlatformException error)
                {
                    _platform.Logger.VolumeWorkFailed(error);
                    failed.Add(volume);
                }
            }
        }
        while (isAnyFolded);
        return failed.Count > 0;
    }

    private async Task<bool> TryFoldAsync(StoredVolume volume, CancellationToken cancellationToken)
    {
        if (volume.UnsettledFold is null && Images.CountFoldable(volume.Record.Top!) == 0)
        {
            return false;
        }

        await volume.Turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            return await SettleFoldAsync(volume, cancellationToken).ConfigureAwait(false) && await FoldAsync(volume, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // It has given way. What was begun is removed, and there may still be something to fold.
            return true;
        }
        finally
        {
            volume.Turn.Release();
        }
    }

    // The top of a volume is not the one that is written down while that could not be done.
    private static bool CanFold(StoredVolume volume) => volume is { IsListed: true, Readers: 0, Writer: null or { IsPublished: true } };

    private async Task<bool> FoldAsync(StoredVolume volume, CancellationToken cancellationToken)
    {
        string top = volume.Record.Top!;
        int count = CanFold(volume) ? Images.CountFoldable(top) : 0;
        if (count == 0)
        {
            return false;
        }

        string folded = ImageDirectory.NewName();
        using CancellationTokenSource ending = CancellationTokenSource.CreateLinkedTokenSource(
            cancellationToken,
            count < MaxPutOff ? volume.Turn.GiveWay() : CancellationToken.None);
        return await WithDiskAsync(
            volume,
            async disk =>
            {
                try
                {
                    if (!await disk.FoldAsync(count, Images.PathOf(folded), ending.Token).ConfigureAwait(false))
                    {
                        return false;
                    }
                }
                catch (PlatformException)
                {
                    // Nothing has changed if the copy was not made, for want of room for example.
                    volume.UnsettledFold = disk.ListPaths().Contains(Images.PathOf(folded), StringComparer.Ordinal) ? new UnsettledFold(top, count, folded) : null;
                    throw;
                }

                Complete(volume, new UnsettledFold(top, count, folded));
                return true;
            },
            ending.Token).ConfigureAwait(false);
    }

    /// <summary>Finds out how a fold has ended whose name could not be written into the image above it, and ends it. The caller has the turn of the volume.</summary>
    /// <returns>Whether nothing is in doubt any more.</returns>
    /// <exception cref="PlatformException">The host still cannot.</exception>
    private async Task<bool> SettleFoldAsync(StoredVolume volume, CancellationToken cancellationToken)
    {
        if (volume.UnsettledFold is not { } fold)
        {
            return true;
        }

        // An image that was cut off meanwhile does not change any more: others may know it by its checksum. The next start reads what it says.
        if (!CanFold(volume) || !string.Equals(fold.Top, volume.Record.Top, StringComparison.Ordinal))
        {
            return false;
        }

        return await WithDiskAsync(
            volume,
            async disk =>
            {
                // What the file says now may not be on the disk. Written once more it is.
                await disk.StoreBackingNameAsync().ConfigureAwait(false);
                if (disk.ListPaths().Contains(Images.PathOf(fold.Folded), StringComparer.Ordinal))
                {
                    Complete(volume, fold);
                }
                else
                {
                    Images.Discard(fold.Folded);
                }

                volume.UnsettledFold = null;
                return true;
            },
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The same before a cut, after which it could not be done any more. One that still cannot be settled harms nothing.</summary>
    private async Task TrySettleFoldAsync(StoredVolume volume, CancellationToken cancellationToken)
    {
        try
        {
            _ = await SettleFoldAsync(volume, cancellationToken).ConfigureAwait(false);
        }
        catch (PlatformException error)
        {
            _platform.Logger.VolumeWorkFailed(error);
        }
    }

    private void Complete(StoredVolume volume, UnsettledFold fold)
    {
        Images.Replace(fold.Top, fold.Count, fold.Folded);
        _platform.Logger.VolumeFolded(volume.Identity.Name, volume.Identity.Uuid, fold.Count);
    }

    // With the one that its guest has, if there is one.
    private async Task<bool> WithDiskAsync(StoredVolume volume, Func<VolumeDisk, Task<bool>> act, CancellationToken cancellationToken)
    {
        if (volume.Writer is { } writer)
        {
            return await act(writer).ConfigureAwait(false);
        }

        VolumeDisk disk = await OpenDiskAsync(volume.Record, isReadOnly: false, cancellationToken).ConfigureAwait(false);
        await using (disk.ConfigureAwait(false))
        {
            return await act(disk).ConfigureAwait(false);
        }
    }
}

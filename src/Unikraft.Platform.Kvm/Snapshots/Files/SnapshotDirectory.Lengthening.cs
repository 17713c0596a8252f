using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <content>A log that was too short for what was saved at a stretch gets a successor.</content>
internal sealed partial class SnapshotDirectory
{
    // How much was saved in the log since it was last empty, and whether it has the length that it has for good. Guarded by the lock.
    private long _burst;
    private bool _isLengthFinal;

    /// <summary>Begins to make a longer log, if the one that there is was too short for what was saved at a stretch.</summary>
    internal void LengthenIfWorthIt()
    {
        lock (_lock)
        {
            LengthenIfWorthIt(_logOptions!);
        }
    }

    // Under the lock.
    private void LengthenIfWorthIt(PublicationLogOptions options)
    {
        long burst = _burst;
        if (_pending.Count > 0)
        {
            return;
        }

        _burst = 0;
        if (_log is { IsClosed: false } log
            && burst >= log.FillMark
            && log.Length < options.MaxLength
            && !_isLengthFinal
            && _preparing.IsCompleted
            && !_closing.IsCancellationRequested)
        {
            _preparing = BackgroundWork.BeginDetached(() => LengthenAsync(log, options));
        }
    }

    private async Task LengthenAsync(PublicationLog log, PublicationLogOptions options)
    {
        try
        {
            LogHeader longer;
            using (_space?.Reserve(2 * options.MaxLength))
            {
                longer = PublicationLog.Prepare(_store, options.MaxLength, _closing.Token);
            }

            try
            {
                while (!await TryReplaceAsync(log, longer).ConfigureAwait(false))
                {
                    // What was saved meanwhile gets its files first, in the next quiet moment.
                    await Task.Delay(options.Delay, options.TimeProvider, _closing.Token).ConfigureAwait(false);
                }
            }
            catch (OperationCanceledException)
            {
                PublicationLog.DeletePrepared(_store);
            }
        }
        catch (OperationCanceledException)
        {
            // The directory is being closed.
        }
        catch (StorageException error)
        {
            // The one that there is does, or the next that is made.
            Log.LogNotMade(_logger, error, _store.Directory);
            lock (_lock)
            {
                // A full disk may have room again.
                _isLengthFinal = !error.IsFull;
            }
        }
    }

    /// <summary>Has a longer log take the place of the one that there is, if that is empty.</summary>
    /// <returns>Whether there is nothing more to do.</returns>
    private async Task<bool> TryReplaceAsync(PublicationLog log, LogHeader longer)
    {
        // Nobody appends to it meanwhile.
        await _writing.WaitAsync(_closing.Token).ConfigureAwait(false);
        try
        {
            lock (_lock)
            {
                if (_log != log || log.IsClosed)
                {
                    // It was given up.
                    PublicationLog.DeletePrepared(_store);
                    return true;
                }

                if (_pending.Count > 0)
                {
                    return false;
                }

                // Should it fail there is none: which of the two the disk has under the name is unknown then.
                (_log, _saved) = (null, 0);
            }

            log.Dispose();
            PublicationLog placed = PublicationLog.Place(_store, longer);
            lock (_lock)
            {
                _log = placed;
            }

            return true;
        }
        finally
        {
            _writing.Release();
        }
    }
}

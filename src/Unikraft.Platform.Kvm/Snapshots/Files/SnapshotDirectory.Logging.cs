using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <remarks>
/// A small snapshot is saved when it is in the publication log. Whoever wants its files, deletes it or builds files on it waits until it has them: they are made of the log alone,
/// by the same code whether it was written a moment ago or found when the directory was opened.
/// </remarks>
internal sealed partial class SnapshotDirectory
{
    /// <summary>Snapshots that were lost with their records, and what came with them. Guarded by the lock.</summary>
    private readonly Dictionary<Guid, IReadOnlyList<Guid>> _lost = [];

    /// <summary>What is in the log and has no files, oldest first. Guarded by the lock.</summary>
    private readonly List<PendingSnapshot> _pending = [];
    private PublicationLog? _log;
    private Task _preparing = Task.CompletedTask;
    private Task _settler = Task.CompletedTask;
    private long _lastLogged;
    private int _saved;

    /// <summary>The making of the log.</summary>
    internal Task Preparing
    {
        get
        {
            lock (_lock)
            {
                return _preparing;
            }
        }
    }

    /// <summary>Saves a snapshot in the log.</summary>
    /// <returns>The number of bytes written; <see langword="null"/> when there is no log, or no room in it.</returns>
    private long? TryLog(
        Guid id,
        KvmSnapshot snapshot,
        MemoryToSave content,
        List<LayerToSave> layers,
        List<LayerToSave> missing,
        ByteProgress progress,
        IDisposable? reservation,
        CancellationToken cancellationToken)
    {
        PublicationLog? log;
        lock (_lock)
        {
            log = _log;
        }

        if (log is { IsClosed: true })
        {
            // Whoever writes holds the lock for that: nobody appends to it any more.
            Settle(cancellationToken);
            RemoveLog();
        }

        if (log is null || log.IsClosed || missing.Count > LogFormat.MaxLayers)
        {
            return null;
        }

        // What would fill a quarter of it anyway need not be described.
        if (missing.Sum(static layer => layer.Layer!.StoredBytes) > log.MaxLength)
        {
            return null;
        }

        SnapshotState described = Describe(id, snapshot, content, layers);
        LogRecord? record;
        while (true)
        {
            // Somebody else may make room meanwhile: then it is used, and nobody waits for more.
            long first = log.FirstNeeded;
            record = Append();
            if (record is not null)
            {
                break;
            }

            if (log.IsClosed || !SettleSome(long.MaxValue, first, cancellationToken))
            {
                return null;
            }
        }

        lock (_lock)
        {
            string name = StateFile.NameOf(id);
            _snapshots[id] = [.. layers.Select(static layer => layer.Stored)];
            layers.ForEach(layer => layer.Stored.Dependents.Add(name));
            missing.ForEach(static layer => layer.Stored.IsLogged = true);
            _pending.Add(new PendingSnapshot(record, described) { Reservation = reservation });
            _lastLogged = _logOptions!.TimeProvider.GetTimestamp();
            _burst += record.Length;
            BeginSettling(_logOptions);
        }

        return record.Length;

        LogRecord? Append() =>
            log.TryAppend([.. missing.Select(static layer => (layer.Layer!, layer.Index))], described, progress.Add, cancellationToken);
    }

    /// <summary>Makes the log, once it is worth it. Under the lock for writing.</summary>
    private void PrepareLogIfWorthIt()
    {
        lock (_lock)
        {
            if (_logOptions is { } options && _log is null && ++_saved >= options.Threshold && _preparing.IsCompleted && !_unreadable.Contains(LogFormat.Name))
            {
                _preparing = BackgroundWork.BeginDetached(() => PrepareLog(options));
            }
        }
    }

    private void PrepareLog(PublicationLogOptions options)
    {
        try
        {
            // With as much to spare: it is given up when snapshots need its room.
            using IDisposable? reservation = _space?.Reserve(2 * options.Length);
            PublicationLog made = PublicationLog.Make(_store, options.Length, _closing.Token);
            lock (_lock)
            {
                _log = made;
            }
        }
        catch (OperationCanceledException)
        {
            // The directory is being closed.
        }
        catch (StorageException error)
        {
            // Snapshots get their files at once, which takes longer and nothing else.
            Log.LogNotMade(_logger, error, _store.Directory);
            lock (_lock)
            {
                // A full disk may have room again.
                _saved = error.IsFull ? 0 : int.MinValue;
            }
        }
    }

    /// <summary>Gives the room back that the log takes, when it is needed for more. Under the lock for writing.</summary>
    /// <returns>Whether there was a log.</returns>
    /// <exception cref="StorageException">There is not even room for the files of what is in there, or the host refused.</exception>
    private bool GiveUpLog(CancellationToken cancellationToken)
    {
        PublicationLog? log;
        lock (_lock)
        {
            log = _log;
            _saved = 0;
        }

        if (log is null)
        {
            return false;
        }

        log.Close();
        Settle(cancellationToken);
        RemoveLog();
        return true;
    }

    /// <summary>Removes the log, of which nothing is needed any more.</summary>
    private void RemoveLog()
    {
        PublicationLog? log;
        _isLogFound = false;
        lock (_lock)
        {
            (log, _log) = (_log, null);
        }

        if (log is null)
        {
            return;
        }

        log.Dispose();
        if (_isLogKept)
        {
            return;
        }

        try
        {
            log.Delete();
        }
        catch (StorageException error)
        {
            // There is nothing in it. The next opening removes it.
            Log.CollectionFailed(_logger, error);
            lock (_lock)
            {
                _saved = int.MinValue;
            }
        }
    }

    /// <summary>Makes files of everything and removes the log, unless there is no room.</summary>
    private async Task CloseLogAsync()
    {
        await _closing.CancelAsync().ConfigureAwait(false);
        await Preparing.ConfigureAwait(false);
        await Folding.ConfigureAwait(false);
        await Settling.ConfigureAwait(false);
        try
        {
            Settle();
            RemoveLog();
        }
        catch (StorageException error)
        {
            // The next opening does it.
            Log.SettlingFailed(_logger, error, _store.Directory);
            _log?.Dispose();
        }

        _closing.Dispose();
    }
}

using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <content>Files are made of what is in the log, by the same code whether it was written a moment ago or found when the directory was opened.</content>
internal sealed partial class SnapshotDirectory
{
    private readonly CancellationTokenSource _closing = new();
    private readonly SemaphoreSlim _settling = new(1, 1);

    // So many bytes of records get their files at a time: a change of the file system is for several of them, and nobody waits for room for more than a few.
    private const long SettledAtOnce = 4 << 20;

    // A record that the host refuses to read so often is lost.
    private const int MaxRefusals = 3;

    /// <summary>The making of files of what is in the log.</summary>
    internal Task Settling
    {
        get
        {
            lock (_lock)
            {
                return _settler;
            }
        }
    }

    /// <summary>The snapshots that are in the log and have no files.</summary>
    internal int Pending
    {
        get
        {
            lock (_lock)
            {
                return _pending.Count;
            }
        }
    }

    /// <summary>Makes files of what is in the log.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused. It stays in the log.</exception>
    internal void Settle(CancellationToken cancellationToken = default)
    {
        lock (_lock)
        {
            if (_pending.Count == 0)
            {
                return;
            }
        }

        while (SettleSome(long.MaxValue, whileNeeded: null, cancellationToken))
        {
        }
    }

    /// <summary>Makes files of the oldest records, of a few at a time: that is one change of the file system for all of them, and room in the log soon.</summary>
    /// <param name="last">The number of the last record that is meant.</param>
    /// <param name="whileNeeded">Nothing is done when the log does not begin with this record any more.</param>
    /// <param name="cancellationToken">Cancels waiting for somebody else who does it.</param>
    /// <returns>Whether there was anything.</returns>
    private bool SettleSome(long last, long? whileNeeded, CancellationToken cancellationToken)
    {
        _settling.Wait(cancellationToken);
        try
        {
            PublicationLog? log;
            PendingSnapshot[] oldest;
            lock (_lock)
            {
                log = _log;
                int count = 0;
                for (long length = 0; count < _pending.Count && length < SettledAtOnce && _pending[count].Record.Sequence <= last; count++)
                {
                    length += _pending[count].Record.Length;
                }

                oldest = [.. _pending.Take(count)];
            }

            if (oldest.Length == 0)
            {
                return false;
            }

            if (whileNeeded is null || log!.FirstNeeded == whileNeeded)
            {
                Settle(log!, oldest);
            }

            return true;
        }
        finally
        {
            _settling.Release();
        }
    }

    private void Settle(PublicationLog log, PendingSnapshot[] pending)
    {
        Dictionary<Guid, Digest> roots = [];
        Dictionary<Guid, string> lost = [];
        int settled = MakeFiles(log, pending, roots, lost);
        if (!_isLogKept)
        {
            log.Release(pending[settled - 1].Record);
        }

        foreach (PendingSnapshot snapshot in pending.Take(settled))
        {
            snapshot.Reservation?.Dispose();
        }

        lock (_lock)
        {
            _pending.RemoveRange(0, settled);
            _areNamesPending = true;
            foreach ((Guid id, Digest root) in roots)
            {
                if (_layers.TryGetValue(id, out StoredLayer? layer))
                {
                    (layer.Root, layer.Verified, layer.IsLogged) = (root, null, false);
                }
            }

            foreach ((Guid id, string reason) in lost)
            {
                if (_layers.TryGetValue(id, out StoredLayer? layer))
                {
                    (layer.Root, layer.Verified, layer.IsLogged, layer.Loss) = (null, null, false, reason);
                }
            }
        }
    }

    /// <summary>
    /// Makes files. A record that the disk has changed meanwhile costs the layers in it, and whoever needs one of them is told so; nothing is made of it, for what is hashed
    /// for a file would be the damage.
    /// </summary>
    /// <param name="log">The log.</param>
    /// <param name="pending">The records, oldest first.</param>
    /// <param name="roots">Where to add the layers that have files.</param>
    /// <param name="lost">Where to add those that have none, and why.</param>
    /// <returns>How many of them have files.</returns>
    private int MakeFiles(PublicationLog log, PendingSnapshot[] pending, Dictionary<Guid, Digest> roots, Dictionary<Guid, string> lost)
    {
        using Publication publication = _store.BeginPublishing();
        int made = 0;
        foreach (PendingSnapshot snapshot in pending)
        {
            StagingBuffer? content;
            try
            {
                // Its state is known. Only pages are read again.
                content = snapshot.Record.Layers.Count == 0 ? null : TryRead(log, snapshot, lost);
            }
            catch (StorageException) when (made > 0)
            {
                // The ones before need not wait for it.
                break;
            }

            if (content is not null)
            {
                WriteLayers(publication, snapshot.Record, content, roots);
            }

            SnapshotState complete = snapshot.State with
            {
                Layers = [.. snapshot.State.Layers.Select(reference => reference with { Root = RootOf(reference, roots) })],
            };
            publication.Write(StateFile.NameOf(snapshot.Record.Snapshot), file => file.Append(StateFile.Encode(complete)));
            made++;
        }

        publication.Publish();
        return made;
    }

    /// <returns>The record; <see langword="null"/> when it is not as it was written.</returns>
    /// <exception cref="StorageException">The host refused, and may not the next time.</exception>
    private StagingBuffer? TryRead(PublicationLog log, PendingSnapshot snapshot, Dictionary<Guid, string> lost)
    {
        try
        {
            return log.Read(snapshot.Record);
        }
        catch (FileDamageException error)
        {
            Lose(error);
        }
        catch (StorageException error) when (++snapshot.Refusals >= MaxRefusals)
        {
            // Whatever else is saved is not to wait for it for ever.
            Lose(error);
        }

        return null;

        void Lose(Exception error)
        {
            string path = _store.PathOf(LogFormat.Name);
            Log.RecordUnreadable(_logger, error, snapshot.Record.Snapshot, path);
            foreach (LoggedLayer layer in snapshot.Record.Layers)
            {
                lost[layer.Header.Id] = DescribeLoss(snapshot.Record.Snapshot);
            }
        }
    }

    private string DescribeLoss(Guid snapshot) =>
        $"was never made: the record of snapshot {snapshot:D} in '{_store.PathOf(LogFormat.Name)}', where its pages were until then, was not as it was written";

    private static void WriteLayers(Publication publication, LogRecord record, StagingBuffer content, Dictionary<Guid, Digest> roots)
    {
        foreach (LoggedLayer layer in record.Layers.Where(layer => !roots.ContainsKey(layer.Header.Id)))
        {
            int first = (int)((layer.ContentOffset - record.Offset) / LogFormat.Block);
            publication.Write(LayerFormat.NameOf(layer.Header.Id), file => roots[layer.Header.Id] = LayerFile.Write(
                file,
                layer.Header.Id,
                (destination, page) => layer.Read(content.Slice(first, layer.Header.StoredPages), destination, page),
                layer.Index,
                layer.Header.GuestPages,
                static _ => { },
                CancellationToken.None));
        }
    }

    /// <summary>The root checksum of a layer, which was in the log when a state was, or has been there since.</summary>
    private Digest RootOf(LayerReference reference, Dictionary<Guid, Digest> roots)
    {
        if (roots.TryGetValue(reference.Id, out Digest made))
        {
            return made;
        }

        if (reference.Root != default)
        {
            return reference.Root;
        }

        lock (_lock)
        {
            if (_layers.TryGetValue(reference.Id, out StoredLayer? layer) && layer.Root is { } known)
            {
                return known;
            }
        }

        try
        {
            using StoredFile? file = _store.TryOpen(LayerFormat.NameOf(reference.Id));
            return file is null ? default : LayerFile.ReadContents(file).Root;
        }
        catch (FileDamageException)
        {
            // Reported to whoever opens the snapshot.
            return default;
        }
    }

    private void SettleIfPending(Guid id)
    {
        long? sequence;
        lock (_lock)
        {
            sequence = _pending.Find(pending => pending.Record.Snapshot == id)?.Record.Sequence;
        }

        while (sequence is { } last && SettleSome(last, whileNeeded: null, CancellationToken.None))
        {
        }
    }

    // Under the lock.
    private void BeginSettling(PublicationLogOptions options)
    {
        if (_settler.IsCompleted)
        {
            _settler = BackgroundWork.BeginDetached(() => SettleLaterAsync(options));
        }
    }

    /// <summary>Makes files when nobody else needs the disk, or the log is filling up.</summary>
    private async Task SettleLaterAsync(PublicationLogOptions options)
    {
        try
        {
            while (true)
            {
                await Task.Delay(options.Delay, options.TimeProvider, _closing.Token).ConfigureAwait(false);
                while (IsDue() && SettleSome(long.MaxValue, whileNeeded: null, _closing.Token))
                {
                }

                await RemoveFoundLogAsync().ConfigureAwait(false);
                lock (_lock)
                {
                    if (_pending.Count == 0)
                    {
                        // Under the lock: whoever adds something now sees that nobody is on it.
                        _settler = Task.CompletedTask;
                        LengthenIfWorthIt(options);
                        return;
                    }
                }
            }
        }
        catch (OperationCanceledException)
        {
            // Whoever closes the directory does it.
        }
        catch (StorageException error)
        {
            // It is as safe in the log. It is tried again with the next one, and when somebody needs the files.
            Log.SettlingFailed(_logger, error, _store.Directory);
        }

        bool IsDue()
        {
            lock (_lock)
            {
                return _log is not { IsClosed: false, IsFilling: false } || options.TimeProvider.GetElapsedTime(_lastLogged) >= options.Delay;
            }
        }
    }
}

using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <remarks>
/// A small snapshot is saved when it is in the publication log. Whoever wants its files, deletes it or builds files on it waits until it has them: they are made of the log alone,
/// by the same code whether it was written a moment ago or found when the directory was opened.
/// </remarks>
internal sealed partial class SnapshotDirectory
{
    private readonly CancellationTokenSource _closing = new();
    private readonly SemaphoreSlim _settling = new(1, 1);

    // So many bytes of records get their files at a time: a change of the file system is for several of them, and nobody waits for room for more than a few.
    private const long SettledAtOnce = 4 << 20;

    // A record that the host refuses to read so often is lost.
    private const int MaxRefusals = 3;

    /// <summary>Records that were damaged when the directory was opened.</summary>
    private readonly List<DamagedRecord> _damaged = [];

    /// <summary>Snapshots that were lost with their records, and what came with them. Guarded by the lock.</summary>
    private readonly Dictionary<Guid, IReadOnlyList<Guid>> _lost = [];

    /// <summary>What is in the log and has no files, oldest first. Guarded by the lock.</summary>
    private readonly List<PendingSnapshot> _pending = [];
    private PublicationLog? _log;
    private Task _preparing = Task.CompletedTask;
    private Task _settler = Task.CompletedTask;
    private long _lastLogged;
    private int _saved;

    // How much was saved in the log since it was last empty, and whether it has the length that it has for good. Guarded by the lock.
    private long _burst;
    private bool _isLengthFinal;

    // The log is the one that was found when the directory was opened. Guarded by the lock for writing, once that is open.
    private volatile bool _isLogFound;

    // The host could not read all of the log that was found, and may the next time.
    private bool _isLogKept;

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

    /// <summary>Removes the log that was found when the directory was opened, once all that is in it has files: from then on there can be another one.</summary>
    private async Task RemoveFoundLogAsync()
    {
        lock (_lock)
        {
            if (!_isLogFound || _pending.Count > 0)
            {
                return;
            }
        }

        await _writing.WaitAsync(_closing.Token).ConfigureAwait(false);
        try
        {
            if (_isLogFound)
            {
                RemoveLog();
            }
        }
        finally
        {
            _writing.Release();
        }
    }

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

    /// <summary>
    /// Finds what a platform before has left in its log. It gets its files in the background, as if it had just been saved, and before anything else is saved: opening a directory
    /// does not wait for them.
    /// </summary>
    private void RecoverLog(CancellationToken cancellationToken)
    {
        _store.Delete(LogFormat.Name + FileStore.TemporarySuffix);
        PublicationLog? log;
        try
        {
            log = PublicationLog.TryOpen(_store);
        }
        catch (Exception error) when (error is FileDamageException || (error is StorageException refused && StoredFile.IsUnreadable(refused)))
        {
            // What the disk cannot read may be there at the next opening.
            _isLogKept = error is StorageException;

            // What it says of layers is unknown: none is removed. What was in it is missed by whoever knows of it.
            Log.StateUnreadable(_logger, error, _store.PathOf(LogFormat.Name));
            _unreadable.Add(LogFormat.Name);
            NoteUnreadable(LogFormat.Name, error, snapshot: null);
            return;
        }

        if (log is null)
        {
            return;
        }

        (_log, _isLogFound) = (log, true);
        try
        {
            LogContents contents = log.Read(cancellationToken);
            _isLogKept = !contents.IsReadable;
            _pending.AddRange(contents.Sound);
            _damaged.AddRange(contents.Damaged);
            foreach (DamagedRecord record in contents.Damaged)
            {
                Log.RecordUnreadable(_logger, error: null, record.Snapshot, _store.PathOf(LogFormat.Name));
            }

            if (_isLogKept)
            {
                // What is in there is unknown: no layer is removed, and no other log takes its place.
                _unreadable.Add(LogFormat.Name);
                NoteUnreadable(LogFormat.Name, FileDamageException.Damaged("has parts that cannot be read"), snapshot: null);
            }

            if (_isLogKept || _pending.Count == 0 || _logOptions is null)
            {
                Settle(cancellationToken);
                RemoveLog();
            }
        }
        catch (StorageException error)
        {
            Log.SettlingFailed(_logger, error, _store.Directory);
        }
    }

    /// <summary>Begins to make files of what was found in the log.</summary>
    private void SettleFound()
    {
        lock (_lock)
        {
            if (_pending.Count > 0 && _logOptions is { } options)
            {
                BeginSettling(options);
            }
        }
    }

    /// <summary>Lists what is in the log alone.</summary>
    private void RegisterPending()
    {
        foreach ((LogRecord record, SnapshotState state) in _pending)
        {
            string name = StateFile.NameOf(record.Snapshot);
            List<StoredLayer> layers = [];
            foreach (LayerReference reference in state.Layers)
            {
                if (!_layers.TryGetValue(reference.Id, out StoredLayer? layer))
                {
                    layer = FindOrAdd(reference.Id, reference.Root == default ? null : reference.Root);
                }

                layer.IsLogged |= record.Layers.Any(logged => logged.Header.Id == reference.Id);
                layer.Dependents.Add(name);
                layers.Add(layer);
            }

            _snapshots[record.Snapshot] = layers;
        }
    }

    /// <summary>Notes what was lost with damaged records, for whoever wants it.</summary>
    private void RegisterDamage()
    {
        foreach (DamagedRecord record in _damaged.Where(record => record.Snapshot != Guid.Empty && !_snapshots.ContainsKey(record.Snapshot)))
        {
            _lost[record.Snapshot] = record.Layers;
            foreach (Guid id in record.Layers)
            {
                if (_layers.TryGetValue(id, out StoredLayer? layer))
                {
                    layer.Loss = DescribeLoss(record.Snapshot);
                }
            }
        }
    }

    /// <summary>Under the lock.</summary>
    private SnapshotFileException DescribeLost(Guid id, IReadOnlyList<Guid> layers)
    {
        HashSet<Guid> dependents = [id];
        foreach (Guid layer in layers)
        {
            if (_layers.TryGetValue(layer, out StoredLayer? stored))
            {
                dependents.UnionWith(SnapshotsOf(stored));
            }
        }

        return Describe(LogFormat.Name, FileDamageException.Damaged($"had a record of snapshot {id:D} that was not as it was written"), [.. dependents]);
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

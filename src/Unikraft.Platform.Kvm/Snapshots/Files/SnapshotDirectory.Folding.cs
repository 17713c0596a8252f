using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <remarks>
/// A fold holds all the memory of a guest, and is saved when it is made from too many layers. Before it comes to that it gets its file while nobody waits: the next snapshot
/// refers to it, and what is folded later is told apart from it.
/// </remarks>
internal sealed partial class SnapshotDirectory
{
    // The rest of what a fold may be made from is time for its file to be written.
    private const int WorthFile = FoldOrigin.MaxLayers / 2;

    private Task _folding = Task.CompletedTask;

    /// <summary>The layer that is being written. Guarded by the lock.</summary>
    private StoredLayer? _folded;

    /// <summary>The last fold that has a file, which is kept even if no snapshot refers to it yet. Guarded by the lock.</summary>
    private StoredLayer? _kept;

    /// <summary>The writing of a fold.</summary>
    internal Task Folding
    {
        get
        {
            lock (_lock)
            {
                return _folding;
            }
        }
    }

    /// <summary>Begins to write the fold that a snapshot was saved without, if it is worth it. Under the lock for writing.</summary>
    private void KeepFoldIfWorthIt(PageMap memory, int guestPages)
    {
        MemoryLayer? fold = memory.Layers.FirstOrDefault(static layer => layer.Origin is { } origin && origin.Layers.Count >= WorthFile);
        lock (_lock)
        {
            if (fold is null || _isDisposed || _folded is not null || !fold.TryAddReference())
            {
                return;
            }

            StoredLayer stored = FindOrAdd(fold.Id, root: null);
            stored.Pins++;
            _folded = stored;
            _folding = BackgroundWork.BeginDetached(() => KeepFold(fold, stored, guestPages));
        }
    }

    private void KeepFold(MemoryLayer fold, StoredLayer stored, int guestPages)
    {
        StoredLayer? unneeded = stored;
        try
        {
            PageIndex index = fold.GetIndex();
            using IDisposable? reservation = _space?.Reserve(SpaceOfFile(LayerFormat.Length(index.StoredPages, index.Runs.Length)));
            Digest root = default;
            using (Publication publication = _store.BeginPublishing())
            {
                // A window at a time, so that those who wait for the disk do not wait for all of it.
                publication.Write(stored.Name, file => root = LayerFile.Write(
                    file,
                    stored.Id,
                    (destination, page) => fold.Read(destination, (long)page << PageSize.Shift),
                    index,
                    guestPages,
                    _ => file.WriteBack(isAwaited: true),
                    _closing.Token));
                publication.Publish();
            }

            // No file of a state stands for it yet.
            _store.Sync();
            lock (_lock)
            {
                (stored.Root, stored.Verified) = (root, null);
                (unneeded, _kept) = (_kept, stored);
            }

            fold.Origin = null;
        }
        catch (OperationCanceledException)
        {
            // The directory is being closed.
        }
        catch (Exception error) when (error is StorageException or HypervisorException)
        {
            // A snapshot takes it along when it has to.
            Log.FoldNotKept(_logger, error, _store.Directory);
        }
        finally
        {
            fold.Release();
            lock (_lock)
            {
                _folded = null;
            }

            if (unneeded is not null)
            {
                Unpin([unneeded]);
            }
        }
    }

    /// <summary>Waits for the file of a layer that is being written. Under the lock for writing.</summary>
    private void WaitForFold(List<LayerToSave> layers, CancellationToken cancellationToken)
    {
        Task folding;
        lock (_lock)
        {
            if (_folded is null || !layers.Exists(layer => layer.Stored == _folded))
            {
                return;
            }

            folding = _folding;
        }

        folding.Wait(cancellationToken);
    }

    /// <summary>Lets go of a fold that no snapshot came to refer to.</summary>
    private void ReleaseFold()
    {
        lock (_lock)
        {
            if (_kept is null)
            {
                return;
            }

            _kept.Pins--;
            _kept = null;
        }

        Collect();
    }
}

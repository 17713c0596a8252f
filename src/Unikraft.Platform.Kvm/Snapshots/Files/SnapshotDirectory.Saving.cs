using System.Runtime.InteropServices;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

internal sealed partial class SnapshotDirectory
{
    private long Save(
        Guid id,
        KvmSnapshot snapshot,
        PageMap memory,
        IProgress<SnapshotProgress>? progress,
        CancellationToken cancellationToken)
    {
        MemoryToSave content = MemoryToSave.Of(memory, IsKept);
        List<LayerToSave> layers = Pin(id, content);
        List<StoredLayer> created = [];
        string name = StateFile.NameOf(id);
        bool isPublished = false;
        IDisposable? reservation = null;
        try
        {
            long written = 0;
            WaitForFold(layers, cancellationToken);
            List<LayerToSave> missing = [.. layers.Where(layer => layer.Layer is not null && !IsThere(layer, created))];
            ByteProgress total = new(progress, missing.Sum(static layer => layer.Layer!.StoredBytes));
            reservation = ReserveSpace(Describe(id, snapshot, content, layers), missing, cancellationToken);
            if (TryLog(id, snapshot, content, layers, missing, total, reservation, cancellationToken) is { } logged)
            {
                // Until there are files.
                reservation = null;
                KeepFoldIfWorthIt(memory, (int)(snapshot.Layout.MemorySize >> PageSize.Shift));
                return logged;
            }

            // What is in the log only has no checksum that the state could refer to.
            Settle(cancellationToken);
            int guestPages = (int)(snapshot.Layout.MemorySize >> PageSize.Shift);
            using Publication publication = _store.BeginPublishing();
            foreach (LayerToSave layer in missing)
            {
                publication.Write(layer.Stored.Name, file =>
                {
                    Digest root = LayerFile.Write(
                        file,
                        layer.Stored.Id,
                        (destination, page) => layer.Layer!.Read(destination, (long)page << PageSize.Shift),
                        layer.Index,
                        guestPages,
                        total.Add,
                        cancellationToken);
                    written += file.Written;
                    lock (_lock)
                    {
                        layer.Stored.Root = root;
                        layer.Stored.Verified = null;
                    }
                });
            }

            byte[] state = StateFile.Encode(Describe(id, snapshot, content, layers));
            publication.Write(name, file => file.Append(state));
            cancellationToken.ThrowIfCancellationRequested();
            isPublished = true;
            publication.Publish();
            lock (_lock)
            {
                // Under which of its names the next start finds a file does not matter: the new ones go to the disk with what is done here next.
                _areNamesPending = true;
                _snapshots[id] = [.. layers.Select(static layer => layer.Stored)];
                layers.ForEach(layer => layer.Stored.Dependents.Add(name));
            }

            PrepareLogIfWorthIt();
            KeepFoldIfWorthIt(memory, guestPages);
            return written + state.Length;
        }
        catch
        {
            TakeBack(isPublished ? name : null, created);
            throw;
        }
        finally
        {
            reservation?.Dispose();
            Unpin(layers.Select(static layer => layer.Stored));
        }
    }

    /// <summary>Sets aside what the files of a snapshot take, now or when they are made of the log.</summary>
    /// <exception cref="StorageException">The disk is full.</exception>
    private IDisposable? ReserveSpace(SnapshotState state, List<LayerToSave> missing, CancellationToken cancellationToken)
    {
        if (_space is null)
        {
            return null;
        }

        long bytes = SpaceOfFile(StateFile.LengthOf(state))
            + missing.Sum(static layer => SpaceOfFile(LayerFormat.Length(layer.Index.StoredPages, layer.Index.Runs.Length)));
        try
        {
            return _space.Reserve(bytes);
        }
        catch (StorageException error) when (error.IsFull)
        {
            if (!GiveUpLog(cancellationToken))
            {
                throw;
            }

            return _space.Reserve(bytes);
        }
    }

    /// <summary>What a file takes of a disk: whole blocks, one for where they are, and its part of a directory.</summary>
    private static long SpaceOfFile(long length) => LogFormat.Align(length) + 2 * LogFormat.Block;

    /// <summary>Keeps the files of the layers of a snapshot that is to be saved.</summary>
    private List<LayerToSave> Pin(Guid id, MemoryToSave content)
    {
        lock (_lock)
        {
            if (_snapshots.ContainsKey(id))
            {
                throw new NameConflictException("A snapshot", id.ToString("D"));
            }

            List<LayerToSave> layers = [];
            foreach (MemoryToSave.Part part in content.Layers)
            {
                StoredLayer stored = FindOrAdd(part.Id, root: null);
                stored.Pins++;
                layers.Add(new LayerToSave(part.Layer, stored, part.Index));
            }

            return layers;
        }
    }

    /// <summary>Whether a layer is kept here. Nobody else writes to the directory: who has saved or opened it knows that the file is there.</summary>
    private bool IsKept(Guid id)
    {
        lock (_lock)
        {
            return _layers.TryGetValue(id, out StoredLayer? known) && (known.Root is not null || known.IsLogged);
        }
    }

    /// <summary>Whether the file of a layer is there and can be referred to. One of the wrong length is written anew.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="created">Where to note a layer of which there is no file at all.</param>
    private bool IsThere(LayerToSave layer, List<StoredLayer> created)
    {
        lock (_lock)
        {
            if (layer.Stored.IsLogged)
            {
                return true;
            }
        }

        using StoredFile? file = _store.TryOpen(layer.Stored.Name);
        if (file is null)
        {
            created.Add(layer.Stored);
            return false;
        }

        bool isWhole = file.Stat().Length == LayerFormat.Length(layer.Index.StoredPages, layer.Index.Runs.Length);
        lock (_lock)
        {
            return isWhole && layer.Stored.Root is not null;
        }
    }

    private static SnapshotState Describe(Guid id, KvmSnapshot snapshot, MemoryToSave content, List<LayerToSave> layers)
    {
        return new SnapshotState
        {
            Id = id,
            Layout = snapshot.Layout,
            Vcpus = snapshot.Vcpus,
            Device = snapshot.Device,
            Kernel = snapshot.Kernel,
            Disks = snapshot.Disks,
            Layers = [.. layers.Select(static layer => new LayerReference(layer.Stored.Id, layer.Stored.Root ?? default))],
            Extents = content.Extents,
            Depth = snapshot.Depth,
            Pause = snapshot.Pause,
            Throttled = snapshot.Throttled,
            StoredBytes = snapshot.StoredBytes,
        };
    }

    /// <summary>Removes what a failed saving has made.</summary>
    private void TakeBack(string? state, List<StoredLayer> created)
    {
        try
        {
            if (state is not null)
            {
                _store.Delete(state);
                lock (_lock)
                {
                    _isDeletionPending = true;
                }
            }

            SyncDeletion();
            foreach (StoredLayer layer in created)
            {
                lock (_lock)
                {
                    // One that was missing from other snapshots is a gain.
                    if (layer.Dependents.Count > 0)
                    {
                        continue;
                    }

                    layer.Root = null;
                }

                _store.Delete(layer.Name);
            }
        }
        catch (StorageException error)
        {
            // The failure that led here is the one to report. Nothing refers to what is left, and it goes when the directory is next opened.
            Log.CollectionFailed(_logger, error);
        }
    }

    [StructLayout(LayoutKind.Auto)]
    private readonly record struct LayerToSave(MemoryLayer? Layer, StoredLayer Stored, PageIndex Index);
}

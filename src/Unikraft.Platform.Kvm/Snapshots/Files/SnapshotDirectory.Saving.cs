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
        List<LayerToSave> layers = Pin(id, [.. memory.Layers.Select(static layer => (layer, layer.GetIndex()))]);
        List<StoredLayer> created = [];
        string name = StateFile.NameOf(id);
        bool isPublished = false;
        try
        {
            long written = 0;
            List<LayerToSave> missing = [.. layers.Where(layer => !IsThere(layer, created))];
            ByteProgress total = new(progress, missing.Sum(static layer => layer.Layer.StoredBytes));
            int guestPages = (int)(snapshot.Layout.MemorySize >> PageSize.Shift);
            foreach (LayerToSave layer in missing)
            {
                _store.Publish(layer.Stored.Name, file =>
                {
                    Digest root = LayerFile.Write(file, layer.Layer, layer.Index, guestPages, total.Add, cancellationToken);
                    written += file.Written;
                    lock (_lock)
                    {
                        layer.Stored.Root = root;
                        layer.Stored.Verified = null;
                    }
                });
            }

            cancellationToken.ThrowIfCancellationRequested();
            if (missing.Count > 0)
            {
                _store.Sync();
            }

            byte[] state = StateFile.Encode(Describe(id, snapshot, memory, layers));
            _store.Publish(name, file => file.Append(state));
            isPublished = true;
            _store.Sync();
            lock (_lock)
            {
                _snapshots[id] = [.. layers.Select(static layer => layer.Stored)];
                layers.ForEach(layer => layer.Stored.Dependents.Add(name));
            }

            return written + state.Length;
        }
        catch
        {
            TakeBack(isPublished ? name : null, created);
            throw;
        }
        finally
        {
            Unpin(layers.Select(static layer => layer.Stored));
        }
    }

    /// <summary>Keeps the files of the layers of a snapshot that is to be saved.</summary>
    private List<LayerToSave> Pin(Guid id, (MemoryLayer Layer, PageIndex Index)[] memory)
    {
        lock (_lock)
        {
            if (_snapshots.ContainsKey(id))
            {
                throw new NameConflictException("A snapshot", id.ToString("D"));
            }

            List<LayerToSave> layers = [];
            foreach ((MemoryLayer layer, PageIndex index) in memory)
            {
                StoredLayer stored = FindOrAdd(layer.Id, root: null);
                stored.Pins++;
                layers.Add(new LayerToSave(layer, stored, index));
            }

            return layers;
        }
    }

    /// <summary>Whether the file of a layer is there and can be referred to. One of the wrong length is written anew.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="created">Where to note a layer of which there is no file at all.</param>
    private bool IsThere(LayerToSave layer, List<StoredLayer> created)
    {
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

    private static SnapshotState Describe(Guid id, KvmSnapshot snapshot, PageMap memory, List<LayerToSave> layers)
    {
        Dictionary<MemoryLayer, int> numbers = layers.Index().ToDictionary(static entry => entry.Item.Layer, static entry => entry.Index);
        List<StoredExtent> extents = new(memory.Extents.Length);
        foreach (PageExtent extent in memory.Extents)
        {
            extents.Add(new StoredExtent(extent.Start, extent.Length, numbers[extent.Layer]));
        }

        return new SnapshotState
        {
            Id = id,
            Layout = snapshot.Layout,
            Vcpus = snapshot.Vcpus,
            Device = snapshot.Device,
            Disks = snapshot.Disks,
            Layers = [.. layers.Select(static layer => new LayerReference(layer.Layer.Id, layer.Stored.Root!.Value))],
            Extents = extents,
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
    private readonly record struct LayerToSave(MemoryLayer Layer, StoredLayer Stored, PageIndex Index);
}

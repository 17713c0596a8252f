using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

internal sealed partial class SnapshotDirectory
{
    private const int NamedDependents = 8;

    /// <summary>Reads a snapshot, while its layers cannot go away.</summary>
    private async Task<T> ReadAsync<T>(
        Guid id,
        Func<LayersToRead, CancellationToken, Task<T>> read,
        IProgress<SnapshotProgress>? progress,
        CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            _readers++;
        }

        try
        {
            return await Task.Run(() => ReadCoreAsync(id, read, progress, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            lock (_lock)
            {
                if (--_readers == 0 && _isDisposed)
                {
                    _idle.SetResult();
                }
            }
        }
    }

    private async Task<T> ReadCoreAsync<T>(
        Guid id,
        Func<LayersToRead, CancellationToken, Task<T>> read,
        IProgress<SnapshotProgress>? progress,
        CancellationToken cancellationToken)
    {
        SettleIfPending(id);
        SnapshotState state = ReadStateOf(id);
        StoredLayer[] layers;
        lock (_lock)
        {
            ThrowIfUnknown(id);
            layers = [.. state.Layers.Select(reference => FindOrAdd(reference.Id, reference.Root))];
            foreach (StoredLayer layer in layers)
            {
                layer.Dependents.Add(StateFile.NameOf(id));
                layer.Pins++;
            }

            // It may have been unreadable when the directory was opened, and replaced by a sound copy since.
            _snapshots[id] = layers;
            _unreadable.Remove(StateFile.NameOf(id));
        }

        try
        {
            long total = 0;
            foreach (StoredLayer layer in layers)
            {
                using StoredFile file = OpenFile(layer);
                total += Reading(layer, () => file.Stat().Length);
            }

            return await read(new LayersToRead(state, layers, new ByteProgress(progress, total)), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            Unpin(layers);
        }
    }

    private async Task<IMachineSnapshot> LoadAsync(LayersToRead read, CancellationToken cancellationToken)
    {
        List<MemoryLayer> opened = [];
        try
        {
            for (int i = 0; i < read.Layers.Length; i++)
            {
                opened.Add(await OpenLayerAsync(read, i, cancellationToken).ConfigureAwait(false));
            }

            SnapshotState state = read.State;
            PageExtent[] extents =
                [.. state.Extents.Select(extent => new PageExtent(extent.Start, extent.Length, opened[extent.Layer]))];
            return new KvmSnapshot(
                PageMap.Load(extents, state.StoredBytes, state.Depth),
                state.Layout,
                state.Vcpus,
                state.Device,
                state.Pause,
                state.Throttled,
                state.Disks)
            {
                Kernel = state.Kernel,
                Path = _store.PathOf(StateFile.NameOf(state.Id)),
            };
        }
        finally
        {
            // The snapshot has its own.
            opened.ForEach(static layer => layer.Release());
        }
    }

    /// <returns>The layer, with a reference for the caller.</returns>
    private async Task<MemoryLayer> OpenLayerAsync(LayersToRead read, int number, CancellationToken cancellationToken)
    {
        StoredLayer stored = read.Layers[number];
        await stored.Gate.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            (MemoryLayer Layer, LayerContents Contents)? opened;
            lock (_lock)
            {
                opened = stored.Opened is { } living && living.Layer.TryAddReference() ? living : null;
            }

            if (opened is { } shared)
            {
                try
                {
                    Reading(stored, () => Check(read, number, shared.Contents));
                }
                catch
                {
                    shared.Layer.Release();
                    throw;
                }

                read.Progress.Add(shared.Contents.FileLength);
                return shared.Layer;
            }

            using StoredFile file = OpenFile(stored);
            LayerContents contents = Reading(stored, () => ReadLayer(file, read, number, isTrusting: true, cancellationToken));
            MemoryLayer layer = new(
                file.Detach(),
                stored.Id,
                contents.Index,
                LayerFormat.HeaderSize,
                layer => OnFreed(stored, layer));
            lock (_lock)
            {
                stored.Opened = (layer, contents);
            }

            return layer;
        }
        finally
        {
            stored.Gate.Release();
        }
    }

    private void OnFreed(StoredLayer stored, MemoryLayer layer)
    {
        lock (_lock)
        {
            if (stored.Opened?.Layer == layer)
            {
                stored.Opened = null;
            }

            if (stored.IsUnused)
            {
                CollectLater();
            }
        }
    }

    private async Task<bool> VerifyAsync(LayersToRead read, CancellationToken cancellationToken)
    {
        for (int i = 0; i < read.Layers.Length; i++)
        {
            StoredLayer stored = read.Layers[i];
            await stored.Gate.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                using StoredFile file = OpenFile(stored);
                Reading(stored, () => ReadLayer(file, read, i, isTrusting: false, cancellationToken));
            }
            finally
            {
                stored.Gate.Release();
            }
        }

        return true;
    }

    /// <summary>Reads a layer file, and its pages too unless they were verified before. Under the gate of the layer.</summary>
    private LayerContents ReadLayer(StoredFile file, LayersToRead read, int number, bool isTrusting, CancellationToken cancellationToken)
    {
        StoredLayer stored = read.Layers[number];
        FileStamp stamp = file.Stat();
        LayerContents contents = LayerFile.ReadContents(file);
        Check(read, number, contents);
        bool isVerified;
        lock (_lock)
        {
            isVerified = isTrusting && stored.Verified == stamp;
            stored.Verified = isVerified ? stamp : null;
        }

        if (isVerified)
        {
            read.Progress.Add(contents.FileLength);
            return contents;
        }

        LayerFile.VerifyPages(file, contents, read.Progress.Add, cancellationToken);
        read.Progress.Add(contents.FileLength - ((long)contents.Header.StoredPages << PageSize.Shift));
        lock (_lock)
        {
            stored.Verified = stamp;
        }

        return contents;
    }

    /// <summary>Checks that a sound layer file is the one that a state wants.</summary>
    private static void Check(LayersToRead read, int number, LayerContents contents)
    {
        SnapshotState state = read.State;
        LayerReference wanted = state.Layers[number];
        if (contents.Header.Id != wanted.Id)
        {
            throw new FileDamageException(SnapshotFileError.Mismatched, $"holds the layer {contents.Header.Id:D}");
        }

        if (contents.Root != wanted.Root || contents.Header.GuestPages != state.Layout.MemorySize >> PageSize.Shift)
        {
            throw new FileDamageException(
                SnapshotFileError.Mismatched,
                $"is sound, but not what snapshot {state.Id:D} was saved with: its root checksum is {contents.Root}, not {wanted.Root}");
        }

        foreach (StoredExtent extent in state.Extents)
        {
            if (extent.Layer == number && !contents.Index.TryFind(extent.Start, extent.Length, out _))
            {
                throw new FileDamageException(
                    SnapshotFileError.Mismatched,
                    $"does not hold the {extent.Length} pages from page {extent.Start} that snapshot {state.Id:D} takes from it");
            }
        }
    }

    private SnapshotState ReadStateOf(Guid id)
    {
        string name = StateFile.NameOf(id);
        lock (_lock)
        {
            ThrowIfUnknown(id);
        }

        try
        {
            SnapshotState state = ReadState(name);
            return state.Id == id
                ? state
                : throw new FileDamageException(SnapshotFileError.Mismatched, $"holds the snapshot {state.Id:D}");
        }
        catch (FileDamageException error)
        {
            throw DescribeState(error);
        }
        catch (StorageException error) when (StoredFile.IsUnreadable(error))
        {
            throw DescribeState(Unreadable(error));
        }

        SnapshotFileException DescribeState(FileDamageException error)
        {
            lock (_lock)
            {
                // It may have been deleted in the meantime.
                ThrowIfUnknown(id);
            }

            return Describe(name, error, [id]);
        }
    }

    /// <exception cref="FileDamageException">It cannot be used.</exception>
    private SnapshotState ReadState(string name)
    {
        using StoredFile file = _store.TryOpen(name) ?? throw new FileDamageException(SnapshotFileError.Missing, "is missing");
        long length = file.Stat().Length;
        if (length < StateFile.HeaderSize)
        {
            throw FileDamageException.Damaged($"has {length} bytes, fewer than any state file");
        }

        // The length is checked before that much memory is taken.
        byte[] header = new byte[StateFile.HeaderSize];
        file.Read(header, offset: 0);
        StateFile.CheckLength(header, length);
        byte[] bytes = new byte[length];
        file.Read(bytes, offset: 0);
        return StateFile.Decode(bytes);
    }

    private StoredFile OpenFile(StoredLayer layer) => Reading(
        layer,
        () => _store.TryOpen(layer.Name)
            ?? throw DescribeMissing(layer));

    private void Reading(StoredLayer layer, Action read) => Reading(layer, () =>
    {
        read();
        return true;
    });

    private T Reading<T>(StoredLayer layer, Func<T> read)
    {
        try
        {
            return read();
        }
        catch (FileDamageException error)
        {
            throw DescribeLayer(error);
        }
        catch (StorageException error) when (StoredFile.IsUnreadable(error))
        {
            throw DescribeLayer(Unreadable(error));
        }

        SnapshotFileException DescribeLayer(FileDamageException error)
        {
            List<Guid> snapshots;
            lock (_lock)
            {
                snapshots = SnapshotsOf(layer);
            }

            return Describe(layer.Name, error, snapshots);
        }
    }

    private static FileDamageException Unreadable(StorageException error) => FileDamageException.Damaged($"cannot be read: {error.Message.TrimEnd('.')}");

    /// <summary>The snapshots that need a layer. Under the lock.</summary>
    private static List<Guid> SnapshotsOf(StoredLayer layer)
    {
        List<Guid> snapshots = [];
        foreach (string name in layer.Dependents.Order(StringComparer.Ordinal))
        {
            if (TryGetId(name, StateFile.Suffix, out Guid id))
            {
                snapshots.Add(id);
            }
        }

        return snapshots;
    }

    private SnapshotFileException Describe(string name, FileDamageException error, List<Guid> snapshots)
    {
        string path = _store.PathOf(name);
        string others = snapshots.Count > NamedDependents ? $" and {snapshots.Count - NamedDependents} more" : "";
        return new SnapshotFileException(
            error.Error,
            path,
            snapshots,
            $"The file '{path}' {error.Message}. It is needed by {(snapshots.Count == 1 ? "snapshot" : "the snapshots")} "
            + $"{string.Join(", ", snapshots.Take(NamedDependents))}{others}. Put a sound copy of the file there, or delete what needs it.",
            error);
    }

    private sealed record LayersToRead(SnapshotState State, StoredLayer[] Layers, ByteProgress Progress);
}

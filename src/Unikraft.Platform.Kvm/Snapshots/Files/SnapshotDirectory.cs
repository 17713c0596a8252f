using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>Snapshots in files: a state file for each, and a layer file for each memory layer, which several states may refer to.</summary>
/// <remarks>
/// A state file is published when all its layers are on the disk, and a layer is deleted when the deletion of the last state that refers to it is: whatever
/// happens in between leaves files that nothing refers to, and these are removed when the directory is next opened.
/// </remarks>
internal sealed class SnapshotDirectory : ISnapshotDirectory
{
    private const string LockName = "lock";
    private const int NamedDependents = 8;

    private readonly FileStore _store;
    private readonly DescriptorHandle _lockFile;
    private readonly ILogger _logger;
    private readonly SemaphoreSlim _writing = new(1, 1);
    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, IReadOnlyList<StoredLayer>> _snapshots = [];
    private readonly Dictionary<Guid, StoredLayer> _layers = [];
    private readonly HashSet<string> _unreadable = new(StringComparer.Ordinal);
    private readonly TaskCompletionSource _idle = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Task _collecting = Task.CompletedTask;
    private int _readers;
    private bool _isDeletionPending;
    private bool _isDisposed;

    private SnapshotDirectory(FileStore store, DescriptorHandle lockFile, ILogger logger)
    {
        _store = store;
        _lockFile = lockFile;
        _logger = logger;
    }

    /// <summary>The removal of files that nothing needs any more.</summary>
    internal Task Collecting
    {
        get
        {
            lock (_lock)
            {
                return _collecting;
            }
        }
    }

    /// <inheritdoc cref="ISnapshotFiles.OpenDirectoryAsync"/>
    internal static SnapshotDirectory Open(IFileSystem files, string path, ILogger logger, CancellationToken cancellationToken)
    {
        FileStore store = new(files, path);
        store.MakeDirectory();
        SnapshotDirectory directory = new(store, store.Lock(LockName), logger);
        try
        {
            directory.Scan(cancellationToken);
            return directory;
        }
        catch
        {
            directory._lockFile.Dispose();
            throw;
        }
    }

    public IReadOnlyList<Guid> List()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            return [.. _snapshots.Keys];
        }
    }

    public async Task<long> SaveAsync(
        Guid id,
        IMachineSnapshot snapshot,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(snapshot);
        if (snapshot is not KvmSnapshot own)
        {
            throw new ArgumentException("The snapshot was not taken by the KVM backend.", nameof(snapshot));
        }

        return await WriteAsync(
            () =>
            {
                using PageMap memory = own.ShareMemory();
                return Save(id, own, memory, progress, cancellationToken);
            },
            cancellationToken).ConfigureAwait(false);
    }

    public async Task<IMachineSnapshot> OpenAsync(
        Guid id,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default) =>
        await ReadAsync(id, LoadAsync, progress, cancellationToken).ConfigureAwait(false);

    public async Task VerifyAsync(
        Guid id,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default) =>
        await ReadAsync(id, VerifyAsync, progress, cancellationToken).ConfigureAwait(false);

    public async Task DeleteAsync(Guid id, CancellationToken cancellationToken = default) =>
        await WriteAsync(
            () =>
            {
                Delete(id);
                return true;
            },
            cancellationToken).ConfigureAwait(false);

    public async ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            if (_isDisposed)
            {
                return;
            }

            _isDisposed = true;
            if (_readers == 0)
            {
                _idle.SetResult();
            }
        }

        await _idle.Task.ConfigureAwait(false);
        await _writing.WaitAsync().ConfigureAwait(false);
        _writing.Release();
        await Collecting.ConfigureAwait(false);
        _lockFile.Dispose();
    }

    private static bool TryGetId(string name, string suffix, out Guid id)
    {
        id = Guid.Empty;
        return name.EndsWith(suffix, StringComparison.Ordinal) && Guid.TryParseExact(name.AsSpan(0, name.Length - suffix.Length), "D", out id);
    }

    /// <summary>Learns what is there, and removes what an interrupted operation left.</summary>
    private void Scan(CancellationToken cancellationToken)
    {
        IReadOnlyList<string> names = _store.List();
        foreach (string name in names)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (TryGetId(name, StateFile.Suffix + FileStore.TemporarySuffix, out _)
                || TryGetId(name, LayerFormat.Suffix + FileStore.TemporarySuffix, out _))
            {
                _store.Delete(name);
            }
            else if (name.EndsWith(StateFile.Suffix, StringComparison.Ordinal))
            {
                ScanState(name);
            }
        }

        HashSet<string> present = new(names, StringComparer.Ordinal);
        if (_unreadable.Count > 0 || !_layers.Values.All(layer => present.Contains(layer.Name)))
        {
            // A layer that nothing seems to refer to may be one that a damaged state refers to, or a missing one under another name.
            Log.CollectionHeldBack(_logger, _store.Directory);
            return;
        }

        foreach (string name in names)
        {
            if (TryGetId(name, LayerFormat.Suffix, out Guid layer) && !_layers.ContainsKey(layer))
            {
                _store.Delete(name);
            }
        }
    }

    private void ScanState(string name)
    {
        List<StoredLayer> layers = [];
        try
        {
            foreach (LayerReference reference in ReadState(name).Layers)
            {
                StoredLayer layer = FindOrAdd(reference.Id, reference.Root);
                layer.Dependents.Add(name);
                layers.Add(layer);
            }
        }
        catch (FileDamageException)
        {
            // Reported to whoever opens the snapshot. Nobody can tell what it refers to.
            _unreadable.Add(name);
        }

        if (TryGetId(name, StateFile.Suffix, out Guid id))
        {
            _snapshots[id] = layers;
        }
    }

    /// <param name="id">The layer.</param>
    /// <param name="root">What a state says of its content; <see langword="null"/> for nothing.</param>
    private StoredLayer FindOrAdd(Guid id, Digest? root)
    {
        if (!_layers.TryGetValue(id, out StoredLayer? layer))
        {
            layer = new StoredLayer(id) { Root = root };
            _layers.Add(id, layer);
        }
        else if (root is { } known && layer.Root != known)
        {
            layer.Root = null;
        }

        return layer;
    }

    /// <summary>Changes the directory, one change at a time.</summary>
    private async Task<T> WriteAsync<T>(Func<T> write, CancellationToken cancellationToken)
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
        await _writing.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed), this);
            return await Task.Run(write, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _writing.Release();
        }
    }

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

    private void Delete(Guid id)
    {
        string name = StateFile.NameOf(id);
        lock (_lock)
        {
            ThrowIfUnknown(id);
        }

        _store.Delete(name);
        lock (_lock)
        {
            _isDeletionPending = true;
            _unreadable.Remove(name);
            _snapshots.Remove(id, out IReadOnlyList<StoredLayer>? layers);
            foreach (StoredLayer layer in layers!)
            {
                layer.Dependents.Remove(name);
            }
        }

        SyncDeletion();
        Collect();
    }

    /// <summary>No layer may be gone from the disk before the states that referred to it are.</summary>
    private void SyncDeletion()
    {
        lock (_lock)
        {
            if (!_isDeletionPending)
            {
                return;
            }
        }

        _store.Sync();
        lock (_lock)
        {
            _isDeletionPending = false;
        }
    }

    /// <summary>Removes the layers that nothing needs. Under the lock for writing.</summary>
    private void Collect()
    {
        List<StoredLayer> unused;
        lock (_lock)
        {
            if (_unreadable.Count > 0)
            {
                return;
            }

            unused = [.. _layers.Values.Where(static layer => layer.IsUnused)];
            unused.ForEach(layer => _layers.Remove(layer.Id));
        }

        try
        {
            SyncDeletion();
            unused.ForEach(layer => _store.Delete(layer.Name));
        }
        catch (StorageException error)
        {
            // They go when the directory is next opened.
            Log.CollectionFailed(_logger, error);
        }
    }

    /// <summary>Lets layers be collected, when nothing needs them any more. Under the lock.</summary>
    private void CollectLater()
    {
        if (!_isDisposed)
        {
            _collecting = CollectAsync(_collecting);
        }
    }

    private async Task CollectAsync(Task previous)
    {
        await previous.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        await _writing.WaitAsync().ConfigureAwait(false);
        try
        {
            Collect();
        }
        finally
        {
            _writing.Release();
        }
    }

    private void Unpin(IEnumerable<StoredLayer> layers)
    {
        lock (_lock)
        {
            bool isAnyUnused = false;
            foreach (StoredLayer layer in layers)
            {
                layer.Pins--;
                isAnyUnused |= layer.IsUnused;
            }

            if (isAnyUnused)
            {
                CollectLater();
            }
        }
    }

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
                total += file.Stat().Length;
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
                state.Throttled);
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
            lock (_lock)
            {
                // It may have been deleted in the meantime.
                ThrowIfUnknown(id);
            }

            throw Describe(name, error, [id]);
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
        () => _store.TryOpen(layer.Name) ?? throw new FileDamageException(SnapshotFileError.Missing, "is missing"));

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
            string[] dependents;
            lock (_lock)
            {
                dependents = [.. layer.Dependents.Order(StringComparer.Ordinal)];
            }

            List<Guid> snapshots = [];
            foreach (string name in dependents)
            {
                if (TryGetId(name, StateFile.Suffix, out Guid id))
                {
                    snapshots.Add(id);
                }
            }

            throw Describe(layer.Name, error, snapshots);
        }
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

    /// <summary>Under the lock.</summary>
    private void ThrowIfUnknown(Guid id)
    {
        if (!_snapshots.ContainsKey(id))
        {
            throw new ResourceNotFoundException("snapshot", id);
        }
    }

    [StructLayout(LayoutKind.Auto)]
    private readonly record struct LayerToSave(MemoryLayer Layer, StoredLayer Stored, PageIndex Index);

    private sealed record LayersToRead(SnapshotState State, StoredLayer[] Layers, ByteProgress Progress);
}

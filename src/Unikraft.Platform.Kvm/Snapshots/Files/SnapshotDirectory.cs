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
internal sealed partial class SnapshotDirectory : ISnapshotDirectory
{
    private const string LockName = "lock";

    private readonly FileStore _store;
    private readonly DescriptorHandle _lockFile;
    private readonly ILogger _logger;
    private readonly PublicationLogOptions? _logOptions;
    private readonly IDiskSpace? _space;
    private readonly SemaphoreSlim _writing = new(1, 1);
    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, IReadOnlyList<StoredLayer>> _snapshots = [];
    private readonly Dictionary<Guid, StoredLayer> _layers = [];
    private readonly HashSet<string> _unreadable = new(StringComparer.Ordinal);
    private readonly TaskCompletionSource _idle = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Task _collecting = Task.CompletedTask;
    private int _readers;
    private bool _isDeletionPending;
    private bool _areNamesPending;
    private bool _isDisposed;

    private SnapshotDirectory(FileStore store, DescriptorHandle lockFile, ILogger logger, PublicationLogOptions? logOptions, IDiskSpace? space)
    {
        _space = space;
        _logOptions = logOptions;
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
    /// <param name="files">The file system.</param>
    /// <param name="path">The directory.</param>
    /// <param name="logger">Where to log.</param>
    /// <param name="logOptions">How snapshots are kept before they have files; <see langword="null"/> to give them files at once.</param>
    /// <param name="space">The room on the disk; <see langword="null"/> to write until there is none.</param>
    /// <param name="cancellationToken">Cancels the opening.</param>
    internal static SnapshotDirectory Open(
        IFileSystem files,
        string path,
        ILogger logger,
        PublicationLogOptions? logOptions,
        IDiskSpace? space,
        CancellationToken cancellationToken)
    {
        FileStore store = new(files, path);
        store.MakeDirectory();
        SnapshotDirectory directory = new(store, store.Lock(LockName), logger, logOptions, space);
        try
        {
            directory.Scan(cancellationToken);
            directory.SettleFound();
            return directory;
        }
        catch
        {
            directory._log?.Dispose();
            directory._closing.Dispose();
            directory._lockFile.Dispose();
            throw;
        }
    }

    public IReadOnlyList<Guid> List()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            return [.. _snapshots.Keys.Union(_lost.Keys)];
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

        // Before its turn comes: were it folded meanwhile, all of the fold would be written, and not what is new.
        using PageMap memory = own.ShareMemory();
        return await WriteAsync(() => Save(id, own, memory, progress, cancellationToken), cancellationToken).ConfigureAwait(false);
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
        await CloseLogAsync().ConfigureAwait(false);
        ReleaseFold();
        SyncNames();
        _lockFile.Dispose();
    }

    private static bool TryGetId(string name, string suffix, out Guid id)
    {
        id = Guid.Empty;
        return name.EndsWith(suffix, StringComparison.Ordinal) && Guid.TryParseExact(name.AsSpan(0, name.Length - suffix.Length), "D", out id);
    }

    // So that whoever looks at the files of a directory that is closed finds them under their names.
    private void SyncNames()
    {
        try
        {
            if (_areNamesPending)
            {
                _store.Sync();
            }
        }
        catch (StorageException error)
        {
            Log.NamesNotSynced(_logger, error, _store.Directory);
        }
    }

    /// <summary>Learns what is there, completes what was saved, and removes what an interrupted operation left.</summary>
    private void Scan(CancellationToken cancellationToken)
    {
        IReadOnlyList<string> names = _store.List();
        bool hasLog = names.Any(static name => name.StartsWith(LogFormat.Name, StringComparison.Ordinal));
        if (hasLog)
        {
            // First: what is in it may need what has a temporary name.
            FindLog(cancellationToken);
        }

        names = Complete(names, cancellationToken);
        if (hasLog)
        {
            SettleUnlessLater(cancellationToken);
            names = _store.List();
        }

        foreach (string name in names)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (name.EndsWith(StateFile.Suffix, StringComparison.Ordinal))
            {
                ScanState(name);
            }
        }

        RegisterPending();
        RegisterDamage();
        NoteLost();
        HashSet<string> present = new(names, StringComparer.Ordinal);
        StoredLayer[] missing = [.. _layers.Values.Where(layer => !layer.IsLogged && !present.Contains(layer.Name))];
        NoteMissing(missing);
        if (_unreadable.Count > 0 || missing.Length > 0)
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
        bool isSnapshot = TryGetId(name, StateFile.Suffix, out Guid id);
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
        catch (Exception error) when (error is FileDamageException or StorageException)
        {
            // The others are as good as ever. This one is reported again to whoever opens it; until then nobody can tell what it refers to.
            Log.StateUnreadable(_logger, error, _store.PathOf(name));
            _unreadable.Add(name);
            if (isSnapshot)
            {
                NoteUnreadable(name, error, id);
            }
        }

        if (isSnapshot)
        {
            _snapshots[id] = layers;
        }
    }

    /// <param name="id">The layer.</param>
    /// <param name="root">What a state says of its content; <see langword="null"/> for nothing.</param>
    private StoredLayer FindOrAdd(Guid id, Digest? root)
    {
        // A state says nothing of a layer that was lost before it had a file.
        root = root == default(Digest) ? null : root;
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

    private void Delete(Guid id)
    {
        string name = StateFile.NameOf(id);
        lock (_lock)
        {
            if (_lost.Remove(id) && !_snapshots.ContainsKey(id))
            {
                return;
            }

            ThrowIfUnknown(id);
        }

        // The log brings back what is still in it.
        SettleIfPending(id);
        _store.Delete(name);
        if (_areTemporaryKept)
        {
            // The next opening would give it its name.
            _store.Delete(name + FileStore.TemporarySuffix);
        }

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
            (_isDeletionPending, _areNamesPending) = (false, false);
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

    /// <summary>Under the lock.</summary>
    private void ThrowIfUnknown(Guid id)
    {
        if (!_snapshots.ContainsKey(id))
        {
            throw _lost.TryGetValue(id, out IReadOnlyList<Guid>? layers) ? DescribeLost(id, layers) : new ResourceNotFoundException("snapshot", id);
        }
    }
}

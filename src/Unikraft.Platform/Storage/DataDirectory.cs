using Microsoft.Extensions.Logging;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Storage;

/// <summary>
/// The directory in which a platform keeps its resources: metadata, snapshots, images and logs. Owners of resources say what has changed; what that is, is
/// asked of them when it is written, so that many changes are one write.
/// </summary>
/// <remarks>
/// Locks: <see cref="Gate"/> before those of owners, those before the one in here. Under the latter nothing is called.
/// </remarks>
internal sealed partial class DataDirectory : IAsyncDisposable
{
    private const string LockName = "lock";
    private const string SnapshotFolder = "snapshots";

    private static readonly TimeSpan LogInterval = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Heartbeat = TimeSpan.FromSeconds(30);

    private readonly DataFiles _files;
    private readonly MetadataStore _metadata;
    private readonly IDisposable _held;
    private readonly ISnapshotDirectory _snapshots;
    private readonly DiskSpace _space;
    private readonly IHypervisor _hypervisor;
    private readonly TimeProvider _time;
    private readonly ILogger _logger;
    private readonly Lineages _lineages = new();
    private readonly SemaphoreSlim _keeping = new(1, 1);
    private readonly SemaphoreSlim _metadataAccess = new(1, 1);
    private readonly long _openedAt;
    private readonly long _serviceStart;

    private readonly Lock _lock = new();
    private readonly HashSet<StateKey> _gone = [];
    private readonly Dictionary<StateKey, Guid> _snapshotOf = [];
    private readonly Dictionary<Guid, int> _snapshotRecords = [];
    private readonly Dictionary<Guid, int> _snapshotHolds = [];
    private readonly ITimer _timer;
    private Dictionary<StateKey, IKeptResource?> _dirty = [];
    private TaskCompletionSource _committed = NewCommit();
    private Task _writing = Task.CompletedTask;
    private Task _collecting = Task.CompletedTask;
    private bool _isWriting;
    private bool _isTicking;
    private bool _isFrozen;
    private bool _isHeldBack;
    private bool _isDisposed;
    private long _lastFrame;

    private DataDirectory(
        DataFiles files,
        MetadataStore metadata,
        IDisposable held,
        ISnapshotDirectory snapshots,
        DiskSpace space,
        IHypervisor hypervisor,
        PlatformSettings settings,
        TimeProvider time,
        ILogger logger)
    {
        (_files, _metadata, _held, _snapshots, _space, _hypervisor, _time, _logger) =
            (files, metadata, held, snapshots, space, hypervisor, time, logger);
        Images = new KeptImages(files);
        _machine = new Lazy<IReadOnlyDictionary<string, string>>(() => hypervisor.GetFeature<ISnapshotFiles>()!.Machine);
        Logs = new KeptLogs(files, settings.LogCapacityBytes);
        _openedAt = time.GetTimestamp();
        _serviceStart = metadata.ServiceTime;
        _lastFrame = _serviceStart;
        _timer = time.CreateDetachedTimer(static data => ((DataDirectory)data!).Tick(), this, LogInterval, LogInterval);
    }

    /// <summary>Held over changes of several resources that must be on the disk together or not at all.</summary>
    internal Lock Gate { get; } = new();

    internal string Root => _files.Root;

    /// <summary>Whether damage makes it doubtful what is needed, so that nothing is removed.</summary>
    internal bool IsHeldBack => _isHeldBack;

    internal KeptImages Images { get; }

    internal KeptLogs Logs { get; }

    internal ISnapshotDirectory Snapshots => _snapshots;

    /// <summary>
    /// For how long platforms have been up on this directory, all together. Clocks of the host may jump; while no platform is up nobody can use anything, so that is
    /// no time without use.
    /// </summary>
    internal TimeSpan ServiceTime => ServiceTimeAt(_time.GetTimestamp());

    /// <summary>The same at a timestamp.</summary>
    internal TimeSpan ServiceTimeAt(long timestamp) => TimeSpan.FromTicks(_serviceStart) + _time.GetElapsedTime(_openedAt, timestamp);

    private static TaskCompletionSource NewCommit() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Opens a directory, which is made if it is not there.</summary>
    /// <exception cref="DataDirectoryInUseException">Somebody else has it open.</exception>
    /// <exception cref="DataVersionException">It is of a newer version.</exception>
    /// <exception cref="DataDamageException">Its metadata cannot be used.</exception>
    /// <exception cref="StorageException">The host refused.</exception>
    internal static DataDirectory Open(
        PlatformSettings settings,
        IHypervisor hypervisor,
        TimeProvider time,
        ILogger logger,
        IFileLayer? layer = null,
        IReadOnlyDictionary<int, Action<DataFiles>>? upgrades = null)
    {
        string root = Path.GetFullPath(settings.DataDirectory!);
        ISnapshotFiles snapshotFiles = hypervisor.GetFeature<ISnapshotFiles>()
            ?? throw new HypervisorException(
                $"The backend '{hypervisor.Info.Name}' cannot keep snapshots in files. Choose another one, or set {nameof(PlatformOptions.DataDirectory)} to null.");
        layer ??= new HostFileLayer(hypervisor.GetFeature<IDirectorySync>());
        DataFiles files = new(layer, root, settings.Durability == Durability.Synced);

        // The metadata are on the disk whatever the rest is, and so is the way to them.
        files.Durable.MakeDirectory("");
        IDisposable held = files.TryLock(LockName) ?? throw new DataDirectoryInUseException(root);
        MetadataStore? metadata = null;
        try
        {
            metadata = MetadataStore.Open(files, upgrades);
            files.MakeDirectory(KeptLogs.Folder);
            files.MakeDirectory(KeptImages.Folder);
            files.MakeDirectory(ImportFolder);
            DiskSpace space = new(files, settings.MinFreeDiskBytes);
            ISnapshotDirectory snapshots = snapshotFiles.OpenDirectoryAsync(files.PathOf(SnapshotFolder), space, settings.Durability == Durability.Synced).GetAwaiter().GetResult();
            return new DataDirectory(files, metadata, held, snapshots, space, hypervisor, settings, time, logger);
        }
        catch
        {
            metadata?.Dispose();
            held.Dispose();
            throw;
        }
    }

    /// <summary>The service time at a timestamp, in the form that is kept. Not from how long ago it was: the clock would be read twice, and time may pass between.</summary>
    internal long ToServiceTime(long timestamp) => Math.Max(0, ServiceTimeAt(timestamp).Ticks);

    internal TimeSpan SinceServiceTime(long ticks) => TimeSpan.FromTicks(Math.Max(0, ServiceTime.Ticks - ticks));

    /// <inheritdoc cref="Lineages.Extended"/>
    internal void Extended(
        System.Collections.Immutable.ImmutableList<CheckpointReference> before,
        System.Collections.Immutable.ImmutableList<CheckpointReference> history) => _lineages.Extended(before, history);

    internal Guid? KeepLineage(System.Collections.Immutable.ImmutableList<CheckpointReference> history) => _lineages.Keep(history);

    /// <summary>Has the state of a resource written. May be called under the lock of its owner.</summary>
    internal void Changed(IKeptResource resource)
    {
        lock (_lock)
        {
            if (_isFrozen || _gone.Contains(resource.Key))
            {
                return;
            }

            _dirty[resource.Key] = resource;
            BeginWriting();
        }
    }

    /// <summary>A resource is gone for good.</summary>
    internal void Removed(StateKey key)
    {
        lock (_lock)
        {
            if (!_isFrozen && _gone.Add(key))
            {
                _dirty[key] = null;
                BeginWriting();
            }
        }
    }

    /// <summary>A resource that was gone is back.</summary>
    internal void Returned(StateKey key)
    {
        lock (_lock)
        {
            _gone.Remove(key);
        }
    }

    /// <summary>Makes changes that belong together and waits until they are on the disk. If nobody else writes it is done here, without a change of threads.</summary>
    /// <param name="change">Makes the changes, under the <see cref="Gate"/>.</param>
    /// <exception cref="StorageException">They could not be written. They will be with the next change, or in a while.</exception>
    internal Task CommitAsync(Action change)
    {
        Task<Task>? writing = null;
        Task committed;
        lock (Gate)
        {
            lock (_lock)
            {
                if (!_isWriting && !_isDisposed)
                {
                    _isWriting = true;
                    writing = new Task<Task>(WriteAsync);
                    _writing = writing.Unwrap();
                }
            }

            try
            {
                change();
            }
            catch
            {
                // Of what others have changed meanwhile.
                writing?.Start(TaskScheduler.Default);
                throw;
            }

            committed = CommitAsync();
        }

        writing?.RunSynchronously(TaskScheduler.Default);
        return committed;
    }

    /// <summary>Waits until everything that has changed so far is on the disk.</summary>
    /// <exception cref="StorageException">It could not be written. It will be with the next change, or in a while.</exception>
    internal Task CommitAsync()
    {
        lock (_lock)
        {
            if (_dirty.Count == 0 && !_isWriting)
            {
                return Task.CompletedTask;
            }

            BeginWriting();
            // A write under way may have begun before the last change.
            return _committed.Task;
        }
    }

    /// <summary>
    /// What happens from now on is not kept: instances that run are found stopped by the platform at the next start, as after a crash.
    /// </summary>
    internal async Task FreezeAsync()
    {
        try
        {
            Tick();
            await CommitAsync().ConfigureAwait(false);
            foreach (IKeptResource instance in Logs.Unrecorded())
            {
                Changed(instance);
            }

            await CommitAsync().ConfigureAwait(false);
        }
        catch (Exception error)
        {
            _logger.DataNotWritten(error, Root);
        }

        lock (_lock)
        {
            _isFrozen = true;
            _dirty.Clear();
        }
    }

    public async ValueTask DisposeAsync()
    {
        Task writing, collecting;
        lock (_lock)
        {
            if (_isDisposed)
            {
                return;
            }

            (_isDisposed, _isFrozen) = (true, true);
            (writing, collecting) = (_writing, _collecting);
        }

        await _timer.DisposeAsync().ConfigureAwait(false);
        await writing.ConfigureAwait(false);
        await collecting.ConfigureAwait(false);
        try
        {
            Logs.Flush();
            _metadata.Append([], ServiceTime.Ticks);
        }
        catch (StorageException error)
        {
            _logger.DataNotWritten(error, Root);
        }

        await _snapshots.DisposeAsync().ConfigureAwait(false);
        _metadata.Dispose();
        Images.Dispose();
        _keeping.Dispose();
        _metadataAccess.Dispose();
        _held.Dispose();
    }

    private void Tick()
    {
        lock (_lock)
        {
            if (!_isDisposed)
            {
                _isTicking = true;
                BeginWriting();
            }
        }
    }

    // Under the lock.
    private void BeginWriting()
    {
        if (!_isWriting && !_isDisposed)
        {
            _isWriting = true;
            _writing = Detached.Begin(WriteAsync);
        }
    }

    private async Task WriteAsync()
    {
        for (bool isFirst = true; ; isFirst = false)
        {
            if (!isFirst && IsAnythingLeft())
            {
                // Whoever has written his own changes on his own thread does not write those of others there.
                await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            }

            Dictionary<StateKey, IKeptResource?> batch;
            List<StateChange> changes = [];
            TaskCompletionSource committed;
            if (IsTicking())
            {
                // Before the states, which record up to where logs are written; and not with every change, which would wait for it.
                FlushLogs();
            }

            lock (Gate)
            {
                lock (_lock)
                {
                    if (_dirty.Count == 0 && !_isTicking)
                    {
                        _isWriting = false;
                        _committed.TrySetResult();
                        _committed = NewCommit();
                        return;
                    }

                    (batch, _dirty) = (_dirty, []);
                    (committed, _committed) = (_committed, NewCommit());
                    _isTicking = false;
                }

                foreach ((StateKey key, IKeptResource? resource) in batch)
                {
                    if (ChangeOf(key, resource) is { } change)
                    {
                        changes.Add(change);
                    }
                }

                changes.InsertRange(0, _lineages.TakeUntold());
            }

            await _metadataAccess.WaitAsync().ConfigureAwait(false);
            try
            {
                Write(changes);
                foreach (StateKey key in batch.Where(static entry => entry is { Value: null, Key.Kind: StateKind.Instance }).Select(static entry => entry.Key))
                {
                    Logs.Remove(key.Uuid);
                }

                committed.TrySetResult();
            }
            catch (Exception error)
            {
                Restore(batch, changes, error);
                _logger.DataNotWritten(error, Root);
                committed.TrySetException(error);
                // Nobody may be waiting, and then nobody observes the error.
                _ = committed.Task.Exception;
                return;
            }
            finally
            {
                _metadataAccess.Release();
            }
        }
    }

    private StateChange? ChangeOf(StateKey key, IKeptResource? resource)
    {
        ResourceRecord? record = resource?.Save(this);
        if (record is null)
        {
            return _metadata.States.ContainsKey(key) ? new StateChange(key, StateChangeKind.Remove, default) : null;
        }

        if (record.Snapshot is { } snapshot)
        {
            record = record with { Machine = _machines.GetValueOrDefault(snapshot) };
        }

        return new StateChange(key, StateChangeKind.Put, RecordSerializer.Encode(record)) { Snapshot = record.Snapshot };
    }

    private bool IsAnythingLeft()
    {
        lock (_lock)
        {
            return _dirty.Count > 0 || _isTicking;
        }
    }

    private bool IsTicking()
    {
        lock (_lock)
        {
            return _isTicking;
        }
    }

    private void FlushLogs()
    {
        try
        {
            Logs.Flush();
        }
        catch (Exception error)
        {
            // Output is written again at the next turn; it must not keep states from being written.
            _logger.LogsNotWritten(error, Root);
        }
    }

    private void Write(List<StateChange> changes)
    {
        long now = ServiceTime.Ticks;
        if (changes.Count == 0 && now - _lastFrame < Heartbeat.Ticks)
        {
            return;
        }

        _metadata.Append(changes, now);
        _lastFrame = now;
        NoteSnapshots(changes);
    }

    // They are written with what changes next, or at the next tick.
    private void Restore(Dictionary<StateKey, IKeptResource?> batch, List<StateChange> changes, Exception error)
    {
        lock (Gate)
        {
            _lineages.Untell(changes);
            lock (_lock)
            {
                foreach ((StateKey key, IKeptResource? resource) in batch)
                {
                    _dirty.TryAdd(key, resource);
                }

                _isWriting = false;
                // Whoever has waited for the write after this one hears of it too.
                _committed.TrySetException(error);
                _ = _committed.Task.Exception;
                _committed = NewCommit();
            }
        }
    }
}

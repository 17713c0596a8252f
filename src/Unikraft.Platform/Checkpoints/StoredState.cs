using System.Collections.Immutable;
using System.Diagnostics.CodeAnalysis;
using Unikraft.Platform.Instances;

namespace Unikraft.Platform.Checkpoints;

/// <summary>The state that an instance was in at one moment, kept for others to continue from: what checkpoints and templates have in common.</summary>
/// <remarks>The lock guards the fields below it. Nothing that may block or run foreign code is called under it.</remarks>
internal sealed class StoredState(CloneSource source, bool? wasRunning = null) : IDisposable
{
    private readonly bool _wasRunning = wasRunning ?? source.Machine is not null;
    private readonly Lock _lock = new();
    private SnapshotReference? _snapshot;
    private bool _isReady;
    private bool _isDisposed;
    private int _loadCount;

    /// <summary>Where it comes from. The machine is not kept.</summary>
    public CloneSource Source { get; } = source with { Machine = null, Snapshot = null };

    public bool IsReady
    {
        get
        {
            lock (_lock)
            {
                return _isReady;
            }
        }
    }

    public bool IsDisposed
    {
        get
        {
            lock (_lock)
            {
                return _isDisposed;
            }
        }
    }

    /// <summary>The volume templates that belong to it.</summary>
    public IReadOnlyList<AttachedVolume> Volumes
    {
        get
        {
            lock (_lock)
            {
                return _snapshot?.Volumes ?? [];
            }
        }
    }

    /// <summary>The ROMs that it has.</summary>
    public IReadOnlyList<InstanceRom> Roms
    {
        get
        {
            lock (_lock)
            {
                return _snapshot?.Roms ?? [];
            }
        }
    }

    public int LoadCount
    {
        get
        {
            lock (_lock)
            {
                return _loadCount;
            }
        }
    }

    /// <summary>Bytes of memory stored for it; 0 when the source did not run.</summary>
    public long StoredBytes { get; private set; }

    /// <summary>How long the source stood still; <see langword="null"/> when it did not run.</summary>
    public TimeSpan? Pause { get; private set; }

    /// <summary>Under what the snapshot is kept, if it is.</summary>
    public Guid? KeptAs
    {
        get
        {
            lock (_lock)
            {
                return _snapshot?.KeptAs;
            }
        }
    }

    /// <summary>Whether the snapshot was taken over, so that the state can be kept, though it cannot be loaded yet.</summary>
    public bool IsPrepared { get; private set; }

    /// <summary>Goes on where a platform before has left off.</summary>
    public void Recover(SnapshotReference? snapshot, long storedBytes, TimeSpan? pause, int loadCount)
    {
        lock (_lock)
        {
            (_snapshot, StoredBytes, Pause, _loadCount) = (snapshot, storedBytes, pause, loadCount);
            (IsPrepared, _isReady) = (true, true);
        }
    }

    /// <summary>Takes the snapshot over: of a machine that ran, the one that a stopped instance held, or none for the image.</summary>
    public void Prepare(SnapshotReference? snapshot)
    {
        lock (_lock)
        {
            _snapshot = snapshot;
            StoredBytes = _wasRunning ? snapshot!.Snapshot.StoredBytes : 0;
            Pause = _wasRunning ? snapshot!.Snapshot.Pause : null;
            IsPrepared = true;
        }
    }

    /// <summary>It can be loaded.</summary>
    public void Complete()
    {
        lock (_lock)
        {
            _isReady = true;
        }
    }

    public bool TryLoad(InstanceOrigin origin, ImmutableList<CheckpointReference> history, [NotNullWhen(true)] out Blueprint? blueprint)
    {
        lock (_lock)
        {
            blueprint = _isReady && !_isDisposed ? new Blueprint(Source.Configuration, _snapshot?.Share(), origin, history) : null;
            return blueprint is not null;
        }
    }

    public void CountLoads(int count)
    {
        lock (_lock)
        {
            _loadCount += count;
        }
    }

    public void Dispose()
    {
        SnapshotReference? snapshot;
        lock (_lock)
        {
            _isDisposed = true;
            (snapshot, _snapshot) = (_snapshot, null);
        }

        snapshot?.Dispose();
    }
}

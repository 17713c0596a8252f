using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Checkpoints;

/// <summary>One owner's hold on a snapshot. The snapshot is disposed of with the last hold on it.</summary>
internal sealed class SnapshotReference : IDisposable
{
    private readonly Count _count;
    private bool _released;

    public SnapshotReference(IMachineSnapshot snapshot)
        : this(snapshot, new Count())
    {
    }

    private SnapshotReference(IMachineSnapshot snapshot, Count count)
    {
        Snapshot = snapshot;
        _count = count;
    }

    public IMachineSnapshot Snapshot { get; }

    /// <summary>Makes a hold for another owner.</summary>
    public SnapshotReference Share()
    {
        lock (_count)
        {
            ObjectDisposedException.ThrowIf(_released, this);
            _count.Holds++;
            return new SnapshotReference(Snapshot, _count);
        }
    }

    public void Dispose()
    {
        lock (_count)
        {
            if (_released)
            {
                return;
            }

            _released = true;
            if (--_count.Holds != 0)
            {
                return;
            }
        }

        Snapshot.Dispose();
    }

    private sealed class Count
    {
        public int Holds { get; set; } = 1;
    }
}

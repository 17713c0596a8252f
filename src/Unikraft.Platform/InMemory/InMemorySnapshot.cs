using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.InMemory;

/// <summary>A scripted guest between two steps, and its machine.</summary>
internal sealed class InMemorySnapshot(InMemoryHypervisor hypervisor, MachineState state, int depth, TimeSpan pause) : IMachineSnapshot
{
    private bool _disposed;

    // There is no memory; a guest's fields are the guest's own business.
    public long StoredBytes => 0;

    public int Depth => depth;

    public TimeSpan Pause => pause;

    // A scripted guest stands still between two steps anyway: it cannot outrun a snapshot.
    public TimeSpan Throttled => TimeSpan.Zero;

    public MachineState State
    {
        get
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed), typeof(IMachineSnapshot));
            return state;
        }
    }

    public void Dispose()
    {
        if (!Interlocked.Exchange(ref _disposed, true))
        {
            hypervisor.OnSnapshotDisposed();
        }
    }
}

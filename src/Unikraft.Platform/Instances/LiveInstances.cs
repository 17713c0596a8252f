namespace Unikraft.Platform.Instances;

/// <summary>
/// All instances that may hold a machine: also those which are being created and cannot be found yet, or are being deleted and cannot be found any
/// more.
/// </summary>
internal sealed class LiveInstances
{
    private readonly Lock _lock = new();
    private readonly HashSet<InstanceController> _instances = [];
    private int _forks;

    public void Add(InstanceController instance)
    {
        lock (_lock)
        {
            _instances.Add(instance);
        }
    }

    public IReadOnlyList<InstanceController> List()
    {
        lock (_lock)
        {
            return [.. _instances];
        }
    }

    /// <summary>Makes room for a fork that is going to be an instance; <see cref="EndFork"/> must follow.</summary>
    /// <returns>False when there are as many instances as there may be.</returns>
    public bool TryBeginFork(int max)
    {
        lock (_lock)
        {
            bool hasRoom = _instances.Count + _forks < max;
            _forks += hasRoom ? 1 : 0;
            return hasRoom;
        }
    }

    /// <summary>The fork is an instance by now, or has failed.</summary>
    public void EndFork()
    {
        lock (_lock)
        {
            _forks--;
        }
    }

    /// <summary>Ends an instance for good, and waits until nothing of it is left.</summary>
    public async Task CloseAsync(InstanceController instance, StopInitiator initiator, Func<Exception> refusal)
    {
        await instance.CloseAsync(initiator, refusal).ConfigureAwait(false);
        lock (_lock)
        {
            _instances.Remove(instance);
        }
    }
}

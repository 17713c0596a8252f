namespace Unikraft.Platform.Instances;

/// <summary>
/// All instances that may hold a machine: also those which are being created and cannot be found yet, or are being deleted and cannot be found any
/// more.
/// </summary>
internal sealed class LiveInstances
{
    private readonly Lock _lock = new();
    private readonly HashSet<InstanceController> _instances = [];

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

using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Instances;

/// <summary>Tells readers what becomes of one instance. Guarded by the lock of the instance, so that the order is that of the changes.</summary>
/// <remarks>Nobody hears of an instance before it can be found, nor ever of one whose creation failed; then everything since its creation is told.</remarks>
/// <param name="identity">The instance.</param>
/// <param name="timeProvider">The clock.</param>
/// <param name="all">The transitions of all instances.</param>
internal sealed class InstanceTransitions(ResourceIdentity identity, TimeProvider timeProvider, TransitionLog all)
{
    private readonly TransitionLog _own = new();
    private List<InstanceTransition>? _untold = [];
    private long _lastNumber;

    /// <summary>The number of the newest transition.</summary>
    public long LastNumber => _lastNumber;

    /// <summary>Goes on counting where a platform before has left off: what it told is not told again.</summary>
    public void Restore(long lastNumber)
    {
        _lastNumber = lastNumber;
        _untold = null;
    }

    public void Add(InstanceState? from, InstanceState? to, StopReason? stopReason)
    {
        InstanceTransition transition = new(
            ++_lastNumber,
            timeProvider.GetUtcNow(),
            identity.Uuid,
            identity.Name,
            from,
            to,
            stopReason);
        if (_untold is not null)
        {
            _untold.Add(transition);
            return;
        }

        _own.Append(transition);
        all.Append(transition);
    }

    /// <summary>The instance can be found.</summary>
    public void Publish()
    {
        List<InstanceTransition> untold = _untold ?? [];
        _untold = null;
        foreach (InstanceTransition transition in untold)
        {
            _own.Append(transition);
            all.Append(transition);
        }
    }

    /// <summary>The instance is gone.</summary>
    public void Complete() => _own.Complete();

    public IAsyncEnumerable<InstanceTransition> WatchAsync(CancellationToken cancellationToken) => _own.ReadAsync(cancellationToken);
}

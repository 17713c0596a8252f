namespace Unikraft.Platform.Instances;

/// <summary>The connections to one instance. Guarded by its lock.</summary>
internal sealed class InstanceConnections
{
    private readonly HashSet<Connection> _active = [];

    public int Active => _active.Count;

    /// <summary>Those who wait for the instance to run.</summary>
    public int Queued { get; set; }

    /// <summary>How many there have been since the last start.</summary>
    public long Total { get; private set; }

    public bool IsIdle => _active.Count == 0 && Queued == 0;

    public WakeupLatencies Wakeups { get; } = new();

    /// <summary>The instance starts.</summary>
    public void Reset() => Total = 0;

    public IInstanceConnection Open(Action<Connection> onDisposed)
    {
        Connection connection = new(onDisposed);
        _active.Add(connection);
        Total++;
        return connection;
    }

    /// <summary>A connection has ended.</summary>
    /// <returns>False when it had ended already.</returns>
    public bool Remove(Connection connection) => _active.Remove(connection);

    /// <summary>The instance does not run any more: ends all connections. Runs no callback on the caller's thread.</summary>
    public void CloseAll()
    {
        foreach (Connection connection in _active)
        {
            connection.Close();
        }

        _active.Clear();
    }

    /// <summary>One connection.</summary>
    internal sealed class Connection(Action<Connection> onDisposed) : IInstanceConnection
    {
        private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Task Closed => _closed.Task;

        public void Close() => _closed.TrySetResult();

        public void Dispose() => onDisposed(this);
    }
}

namespace Unikraft.Platform;

/// <summary>The state of an instance.</summary>
public enum InstanceState
{
    /// <summary>The instance is not running and holds no vCPU and no memory.</summary>
    Stopped = 0,

    /// <summary>The instance is booting or being restored.</summary>
    Starting = 1,

    /// <summary>The app reached its main entry point.</summary>
    Running = 2,

    /// <summary>The instance is draining connections before it shuts down.</summary>
    Draining = 3,

    /// <summary>The instance is shutting down.</summary>
    Stopping = 4,

    /// <summary>The instance has scaled to zero and starts again when it is needed.</summary>
    Standby = 5,
}

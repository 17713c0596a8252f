namespace Unikraft.Platform.Instances;

/// <summary>The states of an instance: what is allowed in which, and what leads from one to another.</summary>
internal static class InstanceLifecycle
{
    /// <summary>The state that a trigger leads to. A pair that is not in the table is not allowed.</summary>
    public static InstanceState? Next(InstanceState state, InstanceTrigger trigger) => (state, trigger) switch
    {
        (InstanceState.Stopped, InstanceTrigger.Start) => InstanceState.Starting,

        (InstanceState.Starting, InstanceTrigger.MainReached) => InstanceState.Running,
        (InstanceState.Starting, InstanceTrigger.StopRequested) => InstanceState.Stopping,
        (InstanceState.Starting, InstanceTrigger.Ended) => InstanceState.Stopped,
        (InstanceState.Starting, InstanceTrigger.ScaledToZero) => InstanceState.Standby,

        (InstanceState.Running, InstanceTrigger.DrainRequested) => InstanceState.Draining,
        (InstanceState.Running, InstanceTrigger.StopRequested) => InstanceState.Stopping,
        (InstanceState.Running, InstanceTrigger.Ended) => InstanceState.Stopped,

        (InstanceState.Draining, InstanceTrigger.StopRequested) => InstanceState.Stopping,
        (InstanceState.Draining, InstanceTrigger.Ended) => InstanceState.Stopped,

        (InstanceState.Stopping, InstanceTrigger.Ended) => InstanceState.Stopped,
        (InstanceState.Stopping, InstanceTrigger.ScaledToZero) => InstanceState.Standby,

        (InstanceState.Standby, InstanceTrigger.Start) => InstanceState.Starting,
        (InstanceState.Standby, InstanceTrigger.StopRequested) => InstanceState.Stopped,

        _ => null,
    };

    public static bool Allows(InstanceState state, InstanceTrigger trigger) => Next(state, trigger) is not null;

    /// <summary>
    /// What may be asked for in which state. Reading, waiting, watching, patching and deleting are allowed in every state. A stop without effect is allowed,
    /// too: of a stopped instance it ends the restart sequence.
    /// </summary>
    public static bool Allows(InstanceState state, InstanceOperation operation) => operation switch
    {
        InstanceOperation.Start => state is InstanceState.Stopped or InstanceState.Standby,
        InstanceOperation.Stop => true,
        InstanceOperation.Drain => state is InstanceState.Running or InstanceState.Draining,
        InstanceOperation.Suspend => state is InstanceState.Running or InstanceState.Standby,
        InstanceOperation.Clone => state is InstanceState.Running or InstanceState.Stopped or InstanceState.Standby,
        InstanceOperation.Connect => state is InstanceState.Starting or InstanceState.Running or InstanceState.Standby,
        _ => false,
    };
}

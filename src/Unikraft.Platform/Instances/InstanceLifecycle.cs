namespace Unikraft.Platform.Instances;

/// <summary>The state table of an instance. A pair that is not in it is not allowed.</summary>
internal static class InstanceLifecycle
{
    public static InstanceState? Next(InstanceState state, InstanceTrigger trigger) => (state, trigger) switch
    {
        (InstanceState.Stopped, InstanceTrigger.Start) => InstanceState.Starting,

        (InstanceState.Starting, InstanceTrigger.MainReached) => InstanceState.Running,
        (InstanceState.Starting, InstanceTrigger.StopRequested) => InstanceState.Stopping,
        (InstanceState.Starting, InstanceTrigger.Ended) => InstanceState.Stopped,

        (InstanceState.Running, InstanceTrigger.StopRequested) => InstanceState.Stopping,
        (InstanceState.Running, InstanceTrigger.Ended) => InstanceState.Stopped,

        (InstanceState.Stopping, InstanceTrigger.Ended) => InstanceState.Stopped,

        _ => null,
    };

    public static bool Allows(InstanceState state, InstanceTrigger trigger) => Next(state, trigger) is not null;
}

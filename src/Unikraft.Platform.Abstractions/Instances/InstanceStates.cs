namespace Unikraft.Platform;

/// <summary>The documented text forms of <see cref="InstanceState"/>.</summary>
public static class InstanceStates
{
    /// <summary>The name of the state as the instances API and its error texts write it, for example <c>running</c>.</summary>
    /// <param name="state">The state.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="state"/> is not a state.</exception>
    public static string ToText(this InstanceState state) => state switch
    {
        InstanceState.Stopped => "stopped",
        InstanceState.Starting => "starting",
        InstanceState.Running => "running",
        InstanceState.Draining => "draining",
        InstanceState.Stopping => "stopping",
        InstanceState.Standby => "standby",
        _ => throw new ArgumentOutOfRangeException(nameof(state), state, "Not an instance state."),
    };
}

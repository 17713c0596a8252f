namespace Unikraft.Platform;

/// <summary>The documented text forms of <see cref="CheckpointState"/>.</summary>
public static class CheckpointStates
{
    /// <summary>The name of the state as the checkpoints API and its error texts write it: <c>starting</c> or <c>checkpoint</c>.</summary>
    /// <param name="state">The state.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="state"/> is not a state.</exception>
    public static string ToText(this CheckpointState state) => state switch
    {
        CheckpointState.Starting => "starting",
        CheckpointState.Ready => "checkpoint",
        _ => throw new ArgumentOutOfRangeException(nameof(state), state, "Not a checkpoint state."),
    };
}

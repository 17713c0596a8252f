namespace Unikraft.Platform;

/// <summary>The state of a checkpoint.</summary>
public enum CheckpointState
{
    /// <summary><c>starting</c>: its snapshot is being built.</summary>
    Starting = 0,

    /// <summary><c>checkpoint</c>: ready to be loaded.</summary>
    Ready = 1,
}

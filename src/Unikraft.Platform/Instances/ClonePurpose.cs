namespace Unikraft.Platform.Instances;

/// <summary>What an instance is cloned for, and the errors that belong to it.</summary>
internal enum ClonePurpose
{
    /// <summary>To branch from it.</summary>
    Branch,

    /// <summary>To take a checkpoint of it.</summary>
    Checkpoint,

    /// <summary>To turn it into a template. It does not run any more afterwards.</summary>
    Template,

    /// <summary>To suspend it. It goes on from there.</summary>
    Suspension,
}

internal static class ClonePurposes
{
    /// <summary>Whether the instance stands still from the snapshot on, because what it did afterwards would be lost.</summary>
    public static bool Freezes(this ClonePurpose purpose) => purpose is ClonePurpose.Template or ClonePurpose.Suspension;

    public static PlatformException SnapshotPending(this ClonePurpose purpose, string instance) => new(
        PlatformErrorCode.SnapshotPending,
        purpose switch
        {
            ClonePurpose.Branch => "Cannot branch from VM with pending snapshot",
            ClonePurpose.Checkpoint => $"Failed to allocate checkpoint: instance '{instance}' has a pending snapshot",
            ClonePurpose.Suspension => $"Cannot suspend instance '{instance}' with pending snapshot",
            _ => $"Cannot turn instance '{instance}' with pending snapshot into a template",
        });

    public static WrongStateException WrongState(this ClonePurpose purpose, string instance, InstanceState state) => new(
        purpose switch
        {
            ClonePurpose.Branch => $"Cannot branch from VM in state '{state.ToText()}'",
            ClonePurpose.Checkpoint => $"Failed to allocate checkpoint: instance '{instance}' is in state '{state.ToText()}'",
            ClonePurpose.Suspension => $"Cannot suspend instance '{instance}' in state '{state.ToText()}'",
            _ => $"Cannot turn instance '{instance}' in state '{state.ToText()}' into a template",
        },
        state);
}

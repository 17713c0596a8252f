namespace Unikraft.Platform.Instances;

/// <summary>What an instance is cloned for, and the errors that belong to it.</summary>
internal enum ClonePurpose
{
    /// <summary>To branch from it.</summary>
    Branch,

    /// <summary>To take a checkpoint of it.</summary>
    Checkpoint,
}

internal static class ClonePurposes
{
    public static PlatformException SnapshotPending(this ClonePurpose purpose, string instance) => new(
        PlatformErrorCode.SnapshotPending,
        purpose == ClonePurpose.Branch
            ? "Cannot branch from VM with pending snapshot"
            : $"Failed to allocate checkpoint: instance '{instance}' has a pending snapshot");

    public static WrongStateException WrongState(this ClonePurpose purpose, string instance, InstanceState state) => new(
        purpose == ClonePurpose.Branch
            ? $"Cannot branch from VM in state '{state.ToText()}'"
            : $"Failed to allocate checkpoint: instance '{instance}' is in state '{state.ToText()}'",
        state);
}

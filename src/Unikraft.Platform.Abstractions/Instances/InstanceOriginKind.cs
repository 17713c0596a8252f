namespace Unikraft.Platform;

/// <summary>What kind of source an instance was made from.</summary>
public enum InstanceOriginKind
{
    /// <summary>The instance is a branch of another instance.</summary>
    Branch,

    /// <summary>The instance was loaded from a checkpoint.</summary>
    Checkpoint,

    /// <summary>The instance is a clone of a template.</summary>
    Template,
}

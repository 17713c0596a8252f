namespace Unikraft.Platform;

/// <summary>The state of a volume. Names and numbers do not change between versions.</summary>
public enum VolumeState
{
    /// <summary>It was not made yet.</summary>
    Uninitialized = 0,

    /// <summary>It is being made.</summary>
    Initializing = 1,

    /// <summary>It is attached to no instance.</summary>
    Available = 2,

    /// <summary>It is attached to instances, none of which uses it.</summary>
    Idle = 3,

    /// <summary>An instance uses it, or will without being started anew.</summary>
    Mounted = 4,

    /// <summary>It is being cloned or resized.</summary>
    Busy = 5,

    /// <summary>It cannot be used: <see cref="Volume.Error"/> says why.</summary>
    Error = 6,

    /// <summary>It is a template, which never changes.</summary>
    Template = 7,
}

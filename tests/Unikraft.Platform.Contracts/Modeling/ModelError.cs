namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>How an operation ends.</summary>
public enum ModelError
{
    /// <summary>Well.</summary>
    None,

    /// <summary>The request is not allowed.</summary>
    Invalid,

    /// <summary>The resource is in the wrong state.</summary>
    WrongState,

    /// <summary>The resource has a delete lock.</summary>
    Locked,

    /// <summary>The name is taken.</summary>
    Conflict,

    /// <summary>There is no such resource.</summary>
    NotFound,

    /// <summary>A quota is used up.</summary>
    Quota,

    /// <summary>Its caller cancelled it.</summary>
    Cancelled,

    /// <summary>The backend failed.</summary>
    Failed,

    /// <summary>The licence does not include it.</summary>
    License,

    /// <summary>A volume is in use.</summary>
    Busy,

    /// <summary>It took too long.</summary>
    TimedOut,
}

namespace Unikraft.Platform;

/// <summary>What the platform does when an instance stops from within: its app exits or it crashes.</summary>
public enum RestartPolicy
{
    /// <summary><c>never</c>: the instance stays stopped.</summary>
    Never = 0,

    /// <summary><c>always</c>: the instance is started again whenever it stopped from within.</summary>
    Always = 1,

    /// <summary><c>on-failure</c>: the instance is started again only when it crashed.</summary>
    OnFailure = 2,
}

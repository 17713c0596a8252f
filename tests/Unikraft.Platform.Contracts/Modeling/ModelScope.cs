namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>What a script is about.</summary>
public enum ModelScope
{
    /// <summary>Instances, checkpoints and templates.</summary>
    Instances,

    /// <summary>Volumes besides.</summary>
    Volumes,

    /// <summary>Instances, checkpoints and templates, on a host that is restarted.</summary>
    Restarts,

    /// <summary>Volumes besides, on a host that is restarted.</summary>
    VolumesAndRestarts,
}

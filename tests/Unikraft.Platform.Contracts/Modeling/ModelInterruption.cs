namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>What befalls an operation while it is under way.</summary>
public enum ModelInterruption
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>Its caller cancels it.</summary>
    Cancel,

    /// <summary>The backend fails.</summary>
    Fail,
}

namespace Unikraft.Platform.Instances;

/// <summary>What moves an instance from one state to another.</summary>
internal enum InstanceTrigger
{
    /// <summary>A start was asked for, by a caller, by a connection or by the restart policy.</summary>
    Start,

    /// <summary>The app reached its main entry point, or a machine restored from behind it runs.</summary>
    MainReached,

    /// <summary>A stop was asked for that lets connections end first.</summary>
    DrainRequested,

    /// <summary>A stop was asked for, regular or forced, or a drain is over, or the instance is being suspended.</summary>
    StopRequested,

    /// <summary>The machine has ended, or could not be made.</summary>
    Ended,

    /// <summary>The machine has ended, or could not be made, and the next connection is to start the instance.</summary>
    ScaledToZero,
}

namespace Unikraft.Platform.Instances;

/// <summary>What moves an instance from one state to another.</summary>
internal enum InstanceTrigger
{
    /// <summary>A start was asked for, by a caller or by the restart policy.</summary>
    Start,

    /// <summary>The app reached its main entry point, or a machine restored from behind it runs.</summary>
    MainReached,

    /// <summary>A stop was asked for, regular or forced.</summary>
    StopRequested,

    /// <summary>The machine has ended, or could not be made.</summary>
    Ended,
}

namespace Unikraft.Platform.Instances;

/// <summary>What can be asked of an instance, as far as it depends on its state.</summary>
internal enum InstanceOperation
{
    /// <summary>To start it.</summary>
    Start,

    /// <summary>To stop it, at once or by force.</summary>
    Stop,

    /// <summary>To let it finish serving its connections, and then stop it.</summary>
    Drain,

    /// <summary>To keep its memory in a snapshot and give its machine back.</summary>
    Suspend,

    /// <summary>To branch it, to take a checkpoint of it or to turn it into a template.</summary>
    Clone,

    /// <summary>To open a connection to it.</summary>
    Connect,
}

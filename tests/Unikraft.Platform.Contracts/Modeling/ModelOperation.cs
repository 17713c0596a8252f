namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>What a command of a script asks for.</summary>
public enum ModelOperation
{
    /// <summary>Creates a counter, perhaps with policies and replicas.</summary>
    Create,

    /// <summary>Creates a guest that crashes as soon as it runs.</summary>
    CreateCrashing,

    /// <summary>Branches an instance.</summary>
    Branch,

    /// <summary>Takes a checkpoint of an instance.</summary>
    Checkpoint,

    /// <summary>Loads a checkpoint.</summary>
    Load,

    /// <summary>Turns an instance into a template.</summary>
    Convert,

    /// <summary>Clones a template.</summary>
    Clone,

    /// <summary>Starts an instance.</summary>
    Start,

    /// <summary>Stops an instance.</summary>
    Stop,

    /// <summary>Stops an instance by force.</summary>
    Kill,

    /// <summary>Stops an instance when its connections have ended.</summary>
    Drain,

    /// <summary>Suspends an instance.</summary>
    Suspend,

    /// <summary>Connects to an instance.</summary>
    Connect,

    /// <summary>Ends a connection.</summary>
    Disconnect,

    /// <summary>Lets a counter tick.</summary>
    Tick,

    /// <summary>Gives a counter a mark, which it shows.</summary>
    Mark,

    /// <summary>Lets a counter exit.</summary>
    Exit,

    /// <summary>Lets a counter fork itself.</summary>
    Fork,

    /// <summary>Deletes an instance.</summary>
    Delete,

    /// <summary>Deletes a checkpoint.</summary>
    DeleteCheckpoint,

    /// <summary>Deletes a template.</summary>
    DeleteTemplate,

    /// <summary>Patches something.</summary>
    Patch,

    /// <summary>Patches something with an operation that is not allowed at the end.</summary>
    BadPatch,

    /// <summary>Asks for something that contradicts itself, or names what is taken or not there.</summary>
    Refuse,

    /// <summary>Reads the log of an instance.</summary>
    Log,

    /// <summary>Lets time pass.</summary>
    Wait,

    /// <summary>Waits for an instance to come into a state, for a time that passes.</summary>
    WaitFor,

    /// <summary>Ends the platform, or kills it, and begins another one on what it has kept.</summary>
    RestartHost,

    /// <summary>Creates an instance that keeps records on a volume.</summary>
    CreateStore,

    /// <summary>Has such an instance write a record.</summary>
    Put,

    /// <summary>Has such an instance tell its last record, and compare its memory with its volume.</summary>
    Get,

    /// <summary>Creates a volume.</summary>
    CreateVolume,

    /// <summary>Clones a volume.</summary>
    CloneVolume,

    /// <summary>Attaches a volume to an instance.</summary>
    Attach,

    /// <summary>Detaches a volume from an instance.</summary>
    Detach,

    /// <summary>Gives a volume another size.</summary>
    Resize,

    /// <summary>Turns a volume into a template.</summary>
    ConvertVolume,

    /// <summary>Deletes a volume.</summary>
    DeleteVolume,

    /// <summary>Patches a volume.</summary>
    PatchVolume,
}

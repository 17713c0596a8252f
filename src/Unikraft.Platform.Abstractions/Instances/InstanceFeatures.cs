namespace Unikraft.Platform;

/// <summary>Features of an instance that are switched on when it is created.</summary>
[Flags]
public enum InstanceFeatures
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>
    /// In the API <c>delete-on-stop</c>: the instance is deleted when it stops, unless it has a delete lock then. Needs the restart policy
    /// <see cref="RestartPolicy.Never"/>.
    /// </summary>
    DeleteOnStop = 1,
}

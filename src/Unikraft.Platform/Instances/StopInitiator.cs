namespace Unikraft.Platform.Instances;

/// <summary>Who asked for the stop of an instance. Both may have.</summary>
[Flags]
internal enum StopInitiator
{
    /// <summary>Nobody: it stopped from within.</summary>
    None = 0,

    /// <summary>The platform, for example because its host shuts down.</summary>
    Platform = 1,

    /// <summary>A caller of the instances API.</summary>
    User = 2,
}

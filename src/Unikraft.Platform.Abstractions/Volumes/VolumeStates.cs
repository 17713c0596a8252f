namespace Unikraft.Platform;

/// <summary>The texts of <see cref="VolumeState"/>.</summary>
public static class VolumeStates
{
    /// <summary>The state as the public API writes it: <c>available</c>.</summary>
    /// <param name="state">The state.</param>
    /// <exception cref="ArgumentOutOfRangeException">It is no state.</exception>
    public static string ToText(this VolumeState state) => state switch
    {
        VolumeState.Uninitialized => "uninitialized",
        VolumeState.Initializing => "initializing",
        VolumeState.Available => "available",
        VolumeState.Idle => "idle",
        VolumeState.Mounted => "mounted",
        VolumeState.Busy => "busy",
        VolumeState.Error => "error",
        VolumeState.Template => "template",
        _ => throw new ArgumentOutOfRangeException(nameof(state), state, "This is no state of a volume."),
    };
}

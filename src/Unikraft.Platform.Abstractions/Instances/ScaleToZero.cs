namespace Unikraft.Platform;

/// <summary>
/// Has an instance go to <see cref="InstanceState.Standby"/> when it has had no connection for a time, from where the next connection starts it.
/// Connections are those of <see cref="IInstanceManager.ConnectAsync"/>.
/// </summary>
/// <param name="Stateful">
/// Whether the memory is kept in a snapshot from which the next start continues. Else the guest is asked to shut down, and boots its image at the next start.
/// </param>
/// <param name="CooldownTime">The time without a connection, counted from when the app reached its main entry point: 0 to 24 hours.</param>
public sealed record ScaleToZero(bool Stateful, TimeSpan CooldownTime)
{
    /// <summary>The cooldown of the API whose request does not say: 1 s.</summary>
    public static TimeSpan DefaultCooldownTime { get; } = TimeSpan.FromSeconds(1);
}

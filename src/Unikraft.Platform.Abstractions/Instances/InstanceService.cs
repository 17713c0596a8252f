namespace Unikraft.Platform;

/// <summary>
/// A port at which an instance is to be reached. The platform declares services and keeps them; whoever carries connections to instances binds their ports, and
/// announces each connection with <see cref="IInstanceManager.ConnectAsync"/>.
/// </summary>
public sealed record InstanceService
{
    /// <summary>The port to bind: 1 to 65535.</summary>
    public required int Port { get; init; }

    /// <summary>The port of the guest to connect to: 1 to 65535. Default: <see cref="Port"/>, which is also what the record of an instance says then.</summary>
    public int? DestinationPort { get; init; }

    /// <summary>
    /// What is to be done with connections. Port 80 needs <see cref="ServiceHandlers.Http"/> and cannot have <see cref="ServiceHandlers.Tls"/>, 443 needs both; every
    /// other port needs <see cref="ServiceHandlers.Tls"/> and cannot have <see cref="ServiceHandlers.Http"/>. <see cref="ServiceHandlers.Redirect"/> is for port 80.
    /// </summary>
    public required ServiceHandlers Handlers { get; init; }
}

namespace Unikraft.Platform;

/// <summary>What is done with the connections of a service.</summary>
[Flags]
public enum ServiceHandlers
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>TLS ends at whoever carries the connection: in the API <c>tls</c>.</summary>
    Tls = 1,

    /// <summary>It is HTTP, and requests are told apart: in the API <c>http</c>.</summary>
    Http = 2,

    /// <summary>Requests are sent to port 443: in the API <c>redirect</c>.</summary>
    Redirect = 4,
}

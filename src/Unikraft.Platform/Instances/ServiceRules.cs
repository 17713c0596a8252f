namespace Unikraft.Platform.Instances;

/// <summary>What services may say.</summary>
internal static class ServiceRules
{
    private const int HttpPort = 80;
    private const int HttpsPort = 443;
    private const int MaxPort = 65_535;

    private const ServiceHandlers All = ServiceHandlers.Tls | ServiceHandlers.Http | ServiceHandlers.Redirect;

    /// <summary>Services as they are told: each says its destination.</summary>
    /// <exception cref="InvalidRequestException">They are not allowed.</exception>
    public static IReadOnlyList<InstanceService> Resolve(IReadOnlyList<InstanceService>? services) =>
        FindProblem(services ?? []) is { } problem
            ? throw new InvalidRequestException(problem)
            : (InstanceService[])[.. (services ?? []).Select(static service => service with { DestinationPort = service.DestinationPort ?? service.Port })];

    /// <summary>Why services are not allowed; <see langword="null"/> when they are.</summary>
    public static string? FindProblem(IReadOnlyList<InstanceService> services) =>
        services.Select(FindProblem).FirstOrDefault(static problem => problem is not null)
        ?? (services.GroupBy(static service => service.Port).FirstOrDefault(static group => group.Skip(1).Any()) is { } twice
            ? $"'services' has port {twice.Key} more than once"
            : null);

    private static string? FindProblem(InstanceService? service) => service switch
    {
        null => "A service is null",
        { Port: < 1 or > MaxPort } => $"The 'port' of a service is {service.Port}; allowed is 1 to {MaxPort}",
        { DestinationPort: < 1 or > MaxPort } =>
            $"The 'destination_port' of the service at port {service.Port} is {service.DestinationPort}; allowed is 1 to {MaxPort}",
        _ when (service.Handlers & ~All) != ServiceHandlers.None => $"'{service.Handlers}' are not handlers of a service",
        { Port: not HttpPort } when service.Handlers.HasFlag(ServiceHandlers.Redirect) =>
            $"The service at port {service.Port} cannot have the handler 'redirect': only the one at port {HttpPort} can",
        { Port: HttpPort } when !Has(service, ServiceHandlers.Http, without: ServiceHandlers.Tls) =>
            $"The service at port {HttpPort} needs the handler 'http', and cannot have 'tls'",
        { Port: HttpsPort } when !Has(service, ServiceHandlers.Tls | ServiceHandlers.Http, without: ServiceHandlers.None) =>
            $"The service at port {HttpsPort} needs the handlers 'tls' and 'http'",
        { Port: not (HttpPort or HttpsPort) } when !Has(service, ServiceHandlers.Tls, without: ServiceHandlers.Http) =>
            $"The service at port {service.Port} needs the handler 'tls', and cannot have 'http': that is for the ports {HttpPort} and {HttpsPort}",
        _ => null,
    };

    private static bool Has(InstanceService service, ServiceHandlers needed, ServiceHandlers without) =>
        service.Handlers.HasFlag(needed) && (service.Handlers & without) == ServiceHandlers.None;
}

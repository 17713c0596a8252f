using Microsoft.Extensions.Logging;

namespace Unikraft.Platform.Hypervisors;

/// <summary>What a backend gets from the platform it is made for.</summary>
/// <param name="TimeProvider">The platform's clock.</param>
/// <param name="LoggerFactory">Where to log.</param>
public sealed record HypervisorContext(TimeProvider TimeProvider, ILoggerFactory LoggerFactory);

using Microsoft.Extensions.Diagnostics.HealthChecks;
using Unikraft.Platform;
using Unikraft.Platform.Hosting;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Adds the health of a microVM platform to that of its host.</summary>
public static class UnikraftPlatformHealthChecksBuilderExtensions
{
    /// <summary>
    /// Adds a check of the registered <see cref="IUnikraftPlatform"/>: degraded while instances crash again and again and wait for their next restart, failed when the
    /// platform was disposed of. Its data has the backend, the number of instances in each state, of checkpoints and of templates.
    /// </summary>
    /// <param name="builder">The health checks of the host.</param>
    /// <param name="name">The name of the check.</param>
    /// <param name="failureStatus">What a failure is reported as. Default: <see cref="HealthStatus.Unhealthy"/>.</param>
    /// <param name="tags">Tags by which hosts select checks. Default: none.</param>
    /// <returns>The builder.</returns>
    public static IHealthChecksBuilder AddUnikraftPlatform(
        this IHealthChecksBuilder builder,
        string name = "unikraft-platform",
        HealthStatus? failureStatus = null,
        IEnumerable<string>? tags = null)
    {
        ArgumentNullException.ThrowIfNull(builder);
        return builder.Add(new HealthCheckRegistration(
            name,
            static provider => new PlatformHealthCheck(provider.GetRequiredService<IUnikraftPlatform>()),
            failureStatus,
            tags));
    }
}

using Microsoft.Extensions.Diagnostics.HealthChecks;

namespace Unikraft.Platform.Hosting;

/// <summary>Tells a host how its platform is.</summary>
internal sealed class PlatformHealthCheck(IUnikraftPlatform platform) : IHealthCheck
{
    private const int MaxNames = 5;

    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        IReadOnlyList<Instance> instances;
        Dictionary<string, object> data = new(StringComparer.Ordinal) { ["hypervisor"] = platform.Hypervisor.Name };
        try
        {
            instances = platform.Instances.List();
            data["checkpoints"] = platform.Checkpoints.List().Count;
            data["templates"] = platform.Templates.List().Count;
        }
        catch (ObjectDisposedException error)
        {
            return Task.FromResult(new HealthCheckResult(context.Registration.FailureStatus, "The platform was disposed of.", error, data));
        }

        foreach ((InstanceState state, int count) in instances.CountBy(instance => instance.State))
        {
            data[$"instances.{state.ToText()}"] = count;
        }

        string[] waiting = [.. instances.Where(instance => instance.Restart?.NextAt is not null).Select(instance => instance.Name)];
        data["instances.restarting"] = waiting.Length;
        return Task.FromResult(waiting.Length == 0
            ? HealthCheckResult.Healthy($"{instances.Count} instances", data)
            : HealthCheckResult.Degraded(
                $"{waiting.Length} of {instances.Count} instances crash again and again, and wait for their next restart: "
                + string.Join(", ", waiting.Take(MaxNames)) + (waiting.Length > MaxNames ? ", ..." : ""),
                data: data));
    }
}

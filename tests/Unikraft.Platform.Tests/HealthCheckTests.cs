using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed class HealthCheckTests
{
    [Fact]
    public async Task A_host_is_told_how_its_platform_is()
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        builder.Services.AddSingleton<TimeProvider>(new ManualTimeProvider());
        builder.Services.AddUnikraftPlatform().UseInMemory();
        builder.Services.AddHealthChecks().AddUnikraftPlatform(tags: ["live"]);
        using IHost host = builder.Build();
        IUnikraftPlatform platform = host.Services.GetRequiredService<IUnikraftPlatform>();
        HealthCheckService health = host.Services.GetRequiredService<HealthCheckService>();
        await platform.Instances
            .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with { WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();

        HealthReportEntry entry = Assert.Single((await health.CheckHealthAsync().Guarded()).Entries).Value;
        Assert.Equal((HealthStatus.Healthy, 1, 0), (entry.Status, entry.Data["instances.running"], entry.Data["checkpoints"]));
        Assert.Equal(["live"], entry.Tags);

        Instance crashing = await platform.Instances
            .CreateAsync(TestPlatform.Request("crash", "div0") with { Name = "bad", RestartPolicy = RestartPolicy.OnFailure })
            .Guarded();
        while (platform.Instances.Get(crashing.Uuid).Restart?.NextAt is null)
        {
            await Task.Yield();
        }

        entry = Assert.Single((await health.CheckHealthAsync().Guarded()).Entries).Value;
        Assert.Equal(HealthStatus.Degraded, entry.Status);
        Assert.EndsWith(": bad", entry.Description, StringComparison.Ordinal);

        await platform.DisposeAsync().Guarded();
        Assert.Equal(HealthStatus.Unhealthy, (await health.CheckHealthAsync().Guarded()).Status);
    }
}
